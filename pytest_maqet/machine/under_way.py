"""What is under way in a guest, so that it can be broken off when the guest goes back in time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError
from pytest_maqet.waiting.standstill import is_stopped
from pytest_maqet.waiting.vitals import Vitals

T = TypeVar("T")

#: Who ends at a deadline by itself does so within this many seconds.
_MOMENT = 0.1


class Overdue(ChannelError):
    """What was under way in the guest has not ended at its deadline, nor been ended."""


async def unless_stopped(vitals: Vitals, work: Coroutine[Any, Any, T], deadline: Deadline) -> T:
    """`work`, which ends at its deadline, and may clear up in the guest after that.

    Raises Overdue instead where QEMU's process is stopped then: nobody in the guest would hear of it.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=deadline.remaining + _MOMENT)
        if not task.done() and is_stopped(vitals):
            raise Overdue(f"{vitals.vm_name}: nothing in the guest answered within {deadline}")
        return await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class UnderWay:
    """The commands and conversations in one guest; loop-thread only."""

    def __init__(self, vm_name: str) -> None:
        self._vm_name = vm_name
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The value of `work`. Raises ChannelError when it is broken off, Overdue for a TimeoutError."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await task
        except TimeoutError:
            raise Overdue(f"{self._vm_name}: nothing in the guest answered in time") from None
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
