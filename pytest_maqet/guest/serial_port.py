"""One serial port as all its users in this process share it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from pytest_maqet.guest.console_log import ConsoleLog
from pytest_maqet.guest.serial_line import SerialLine
from pytest_maqet.loop import Pulse


@dataclass(frozen=True)
class SerialPort:
    """What it says (`log`, with a beat of `changed` whenever it grows), and where to write (`line`).

    `typing` is held by whoever writes, for as long as what is written belongs together.
    """

    name: str
    log: ConsoleLog
    line: SerialLine
    changed: Pulse
    typing: asyncio.Lock
    vm_name: str

    async def type(self, data: bytes) -> None:
        """Write `data` in one piece, when nobody else is in the middle of something."""
        async with self.typing:
            await self.line.send(data)
