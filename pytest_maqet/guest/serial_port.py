"""One serial port as all its users in this process share it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

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

    async def type(self, data: bytes) -> None:
        """Write `data` in one piece, when nobody else is in the middle of something."""
        async with self.typing:
            await self.line.send(data)
