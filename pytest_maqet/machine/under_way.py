"""What is under way in a guest, so that it can be broken off when the guest goes back in time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from pytest_maqet.errors import ChannelError

T = TypeVar("T")


class UnderWay:
    """The commands and conversations in one guest; loop-thread only."""

    def __init__(self, vm_name: str) -> None:
        self._vm_name = vm_name
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The value of `work`. Raises ChannelError when it is broken off."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is None or caller.cancelling():
                raise
            raise ChannelError(
                f"{self._vm_name}: the guest was put back to a checkpoint while this was under way in it"
            ) from None

    async def break_off(self) -> None:
        """End all of it and wait for its end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
