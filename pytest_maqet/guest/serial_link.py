"""The helper in the guest, within reach over the serial console: looked for, logged in to, installed."""

from __future__ import annotations

import asyncio

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError
from pytest_maqet.guest.console_log import ConsoleLog
from pytest_maqet.guest.serial_frames import FrameReader
from pytest_maqet.guest.serial_helper import HelperInstaller, InstalledHelper
from pytest_maqet.guest.serial_login import GuestAccess, SerialLogin
from pytest_maqet.guest.serial_port import LineWriter
from pytest_maqet.loop import Pulse

#: Seconds that the first greeting of a shell is given; each later one twice as long, up to `LAST_GREETING`.
FIRST_GREETING = 0.5
LAST_GREETING = 8.0


class SerialLink:
    """Types lines for the helper and reads its answers; loop-thread only.

    `typing` is held while lines are typed that belong together: whoever else types on the same serial line
    holds it, too.
    """

    def __init__(
        self, log: ConsoleLog, line: LineWriter, changed: Pulse, access: GuestAccess, vm_name: str
    ) -> None:
        self.vm_name = vm_name
        self.typing = asyncio.Lock()
        self._log = log
        self._line = line
        self._changed = changed
        self._login = SerialLogin(log, line, changed, access, vm_name)
        self._installer = HelperInstaller(log, line, changed, vm_name)
        self._helper: InstalledHelper | None = None

    async def ready(self, deadline: Deadline) -> InstalledHelper:
        """The helper, as last seen or looked for now; `typing` must be held.

        Raises ChannelError when no shell answers before the deadline or the guest lacks what is needed.
        """
        if self._helper is None:
            self._helper = await self._reach(deadline)
        return self._helper

    def forget(self) -> None:
        """The helper was not found where it was: the next `ready` looks for it."""
        self._helper = None

    def reader(self, identity: str) -> FrameReader:
        """The answers to `identity` from now on."""
        return FrameReader(self._log, self._changed, identity)

    async def send(self, data: bytes) -> None:
        """Type `data` as it is; `typing` must be held."""
        await self._line.send(data)

    async def call(self, deadline: Deadline, verb: str, identity: str, *words: str) -> None:
        """Type a call of the helper."""
        async with self.typing:
            helper = await self.ready(deadline)
            await self._line.send(helper.call(verb, identity, *words))

    def silence(self, deadline: Deadline) -> ChannelError:
        """The error for a console where nobody answers; shows what is there instead."""
        return ChannelError(
            f"{self.vm_name}: no shell answered on the serial console within {deadline}; "
            f"it shows:\n{self._log.tail(5)}",
            hint="the guest needs a shell on this serial port; if it asks for a login, "
            "say how to log in: `guest: {user: root, login: [{expect: …, send: …}]}`",
        )

    async def _reach(self, deadline: Deadline) -> InstalledHelper:
        patience = FIRST_GREETING
        while not deadline.expired:
            wait = min(patience, deadline.remaining)
            patience = min(patience * 2, LAST_GREETING)
            if not await self._login.pass_by(deadline):
                await self._change(wait)  # a login that nobody told us about: someone else may log in
                continue
            greeted = await self._installer.greet(wait)
            if greeted is None:
                continue
            helper, installed = greeted
            if installed or await self._installer.install(helper, deadline):
                return helper
        raise self.silence(deadline)

    async def _change(self, patience: float) -> None:
        try:
            async with asyncio.timeout(patience):
                await self._changed.wait()
        except TimeoutError:
            pass
