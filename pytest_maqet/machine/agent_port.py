"""The ports of the guest's agents as QEMU sees them: whether somebody in the guest has them open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError
from pytest_maqet.waiting.vitals import Vitals

T = TypeVar("T")

#: Executes a QMP command.
Execute = Callable[[str, Mapping[str, Any] | None, Deadline], Awaitable[object]]


class AgentPort:
    """Follows the port of one QEMU process; loop-thread only. `patience` (seconds) is for one QMP command."""

    def __init__(self, vitals: Vitals, execute: Execute, patience: float) -> None:
        self._vitals = vitals
        self._execute = execute
        self._patience = patience

    async def gone(self) -> bool:
        """Whether the agent has closed its port and not opened it again.

        QEMU tells of a port at most once a second (VSERPORT_CHANGE; monitor/monitor.c), so the last word may
        be still to come, as when the agent was restarted or the guest restored: QEMU is asked.
        """
        if self._vitals.agent_gone:
            self._vitals.agent_gone = not await self._open("agent")
        return self._vitals.agent_gone

    async def exec_listens(self) -> bool:
        """Whether maqet-exec has its port open; QEMU is asked as for the agent's."""
        if self._vitals.exec_seen and not self._vitals.exec_listens:
            self._vitals.exec_listens = await self._open("exec")
        return self._vitals.exec_listens

    async def wake_listens(self) -> bool:
        """Whether maqet-wake has its port open; QEMU is asked as for the agent's."""
        if self._vitals.wake_seen and not self._vitals.wake_listens:
            self._vitals.wake_listens = await self._open("wake")
        return self._vitals.wake_listens

    async def while_open(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work`; ChannelError at once when the agent closes its port: nobody is left to answer.

        The same when it is maqet-exec, which has the command where it listens.
        """
        task = asyncio.ensure_future(work)
        closing = asyncio.ensure_future(self._closed(quick=self._vitals.exec_listens))
        try:
            await asyncio.wait({task, closing}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise ChannelError(
                f"{self._vitals.vm_name}: the guest agent has closed its port while it ran a command",
                hint="it has ended or the guest goes down; the next command looks for another channel",
            )
        finally:
            task.cancel()
            closing.cancel()
            await asyncio.gather(task, closing, return_exceptions=True)

    async def _closed(self, *, quick: bool) -> None:
        while not await self.gone() and not (quick and not await self.exec_listens()):
            await self._vitals.pulse.wait()

    async def _open(self, label: str) -> bool:
        ports: Any = await self._execute("query-chardev", None, Deadline.after(self._patience))
        return any(port["label"] == label and port["frontend-open"] for port in ports)
