"""The guest's agent where there are two: QEMU's, and beside it the quick maqet-exec of builtin:linux."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError
from pytest_maqet.guest.agent import AgentChannel
from pytest_maqet.guest.commands import CommandOutcome, CommandRequest
from pytest_maqet.guest.exec_port import ExecPort


class QuickAgent:
    """Commands by maqet-exec while it `listens`, else by QEMU's agent; loop-thread only.

    Where maqet-exec breaks though it listens, QEMU's agent takes the commands that come, until `close`.
    """

    name = "agent"

    def __init__(self, agent: AgentChannel, port: ExecPort, listens: Callable[[], Awaitable[bool]]) -> None:
        self._agent = agent
        self._port = port
        self._listens = listens
        self._broken = False

    async def probe(self, deadline: Deadline) -> None:
        """As `AgentChannel.probe`."""
        await self._agent.probe(deadline)

    async def reach(self) -> None:
        """Open the connections of a guest that does not run yet, so that it never sees nobody there."""
        await self._agent.reach()
        if await self._listens():
            await self._port.reach()

    async def settle(self, deadline: Deadline) -> None:
        """Be connected before the guest is frozen: its clones find somebody there."""
        await self._quick(deadline)

    async def run(self, request: CommandRequest, deadline: Deadline) -> CommandOutcome:
        """Run a command to its end; see `Channel.run`."""
        if self._port.takes(request) and await self._quick(deadline):
            try:
                return await self._port.run(request, deadline)
            except ChannelError:
                self._broken = not self._port.usable and await self._listens()
                raise
        return await self._agent.run(request, deadline)

    async def close(self) -> None:
        """Disconnect; the next call connects again."""
        await self._port.close()
        await self._agent.close()
        self._broken = False

    async def _quick(self, deadline: Deadline) -> bool:
        """Whether maqet-exec is there and answers."""
        if self._broken:
            return False
        if not await self._listens():
            await self._port.close()
            return False
        try:
            await self._port.connect(deadline)
        except ChannelError:
            self._broken = not deadline.expired  # else it had no time to answer
            return False
        return True
