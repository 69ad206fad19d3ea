"""One serial port as all its users in this process share it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError
from pytest_maqet.guest.console_log import ConsoleLog
from pytest_maqet.loop import Pulse


class LineWriter(Protocol):
    """Writes to the guest's end of a serial line (see `serial_writer`)."""

    async def send(self, data: bytes) -> None:
        """Write `data`; ChannelError when QEMU is gone."""
        ...


@dataclass(frozen=True)
class SerialPort:
    """What it says (`log`, with a beat of `changed` whenever it grows), and where to write (`line`).

    `typing` is held by whoever writes, for as long as what is written belongs together.
    """

    name: str
    log: ConsoleLog
    line: LineWriter
    changed: Pulse
    typing: asyncio.Lock
    vm_name: str

    async def type(self, data: bytes, deadline: Deadline) -> None:
        """Write `data` in one piece, when nobody else is in the middle of something.

        Raises ChannelError when the guest has not taken it at the deadline; what it had not read is lost.
        """
        try:
            async with asyncio.timeout(deadline.remaining), self.typing:
                await self.line.send(data)
        except TimeoutError:
            raise ChannelError(
                f"{self.vm_name}: the serial port {self.name!r} did not take {len(data)} typed bytes within "
                f"{deadline}",
                hint="nothing in the guest reads the port, or somebody else was typing all the time",
            ) from None
