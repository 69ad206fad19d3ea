"""Brings the serial console to a shell's prompt: logs in where the configuration says how."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from typing import Protocol

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError
from pytest_maqet.guest.console_log import ConsoleLog
from pytest_maqet.guest.serial_port import LineWriter
from pytest_maqet.loop import Pulse

#: Seconds that an empty line is given to show what is at the other end: a login, a prompt or nothing.
ECHO_TIME = 1.0
#: What a login looks like when nothing was configured (getty's, in any language that keeps the word).
_LOGIN_PROMPT = r"\blogin: ?\Z"
_ASKS_FOR_IT = r"(?i)password:? ?\Z"


class LoginStep(Protocol):
    """Wait for `expect`, then send `send`, or what the environment variable `send_env` holds."""

    @property
    def expect(self) -> str | re.Pattern[str]: ...  # noqa: D102

    @property
    def send(self) -> str | None: ...  # noqa: D102

    @property
    def send_env(self) -> str | None: ...  # noqa: D102


class GuestAccess(Protocol):
    """The part of the configuration's `guest:` that tells how to get to a shell on the console."""

    @property
    def user(self) -> str | None: ...  # noqa: D102

    @property
    def password_env(self) -> str | None: ...  # noqa: D102

    @property
    def prompt(self) -> str | re.Pattern[str] | None: ...  # noqa: D102

    @property
    def login(self) -> Sequence[LoginStep]: ...  # noqa: D102


class SerialLogin:
    """Looks at what the console shows and logs in; loop-thread only.

    A password is read from the environment when it is sent, and kept nowhere.
    """

    def __init__(
        self, log: ConsoleLog, line: LineWriter, changed: Pulse, access: GuestAccess, vm_name: str
    ) -> None:
        self._log = log
        self._line = line
        self._changed = changed
        self._vm_name = vm_name
        self._steps = [(re.compile(s.expect), s.send, s.send_env) for s in access.login]
        if not self._steps and access.user is not None:
            self._steps.append((re.compile(_LOGIN_PROMPT), access.user, None))
            if access.password_env is not None:
                self._steps.append((re.compile(_ASKS_FOR_IT), None, access.password_env))

    async def pass_by(self, deadline: Deadline) -> bool:
        """Log in if the console asks for it; False when it shows a login that nothing is configured for.

        Raises ChannelError when the password's variable is not set.
        """
        if not self._steps:
            return re.search(_LOGIN_PROMPT, self._log.tail(1)) is None
        start = self._log.end
        await self._line.send(b"\n")
        first = self._steps[0][0]
        if not await self._shows(first, start, min(ECHO_TIME, deadline.remaining)):
            return True
        for expect, send, send_env in self._steps:
            if not await self._shows(expect, start, deadline.remaining):
                return True
            start = self._log.end
            await self._line.send(self._answer(send, send_env).encode() + b"\n")
        await asyncio.sleep(min(0.05, deadline.remaining))  # let the login's own output begin
        return True

    def _answer(self, send: str | None, send_env: str | None) -> str:
        if send_env is None:
            return send or ""
        value = os.environ.get(send_env)
        if value is None:
            raise ChannelError(
                f"{self._vm_name}: the login on the console needs the environment variable {send_env}, "
                "which is not set"
            )
        return value

    async def _shows(self, pattern: re.Pattern[str], start: int, patience: float) -> bool:
        try:
            async with asyncio.timeout(patience):
                while not pattern.search(self._log.text(start).rstrip("\n")):
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True
