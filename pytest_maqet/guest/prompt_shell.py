"""Commands at a prompt that is not a POSIX shell's: typed, and read up to the next prompt."""

from __future__ import annotations

import asyncio
import re
import time

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError, CommandTimeout
from pytest_maqet.guest.caller import Caller
from pytest_maqet.guest.commands import CompletedCommand
from pytest_maqet.guest.serial_port import SerialPort
from pytest_maqet.masking import masked

#: A prompt counts when nothing follows it for this long, in seconds: output may look like one in passing.
QUIET = 0.03
#: Seconds in which a prompt may come of its own accord before an empty line asks for one.
OWN_ACCORD = 1.0


class PromptShell:
    """What `vm.console.shell(prompt=…)` returns."""

    def __init__(
        self, port: SerialPort, caller: Caller, *, prompt: re.Pattern[str], status: str | None, eol: str
    ) -> None:
        self._port = port
        self._log = port.log
        self._caller = caller
        self._prompt = prompt
        self._status = status
        self._eol = eol

    def run(self, command: str, *, check: bool = True, timeout: float | None = None) -> CompletedCommand[str]:
        """Type one line and return what was printed up to the next prompt, as `stdout`.

        Raises CommandError for a status other than 0 (unless `check=False`), CommandTimeout when no prompt
        came back, ChannelError when none was there to begin with, ValueError for a command of several lines.
        """
        if "\n" in command or "\r" in command:
            raise ValueError(f"one line at a time can be typed at a prompt, got {command!r}")
        deadline = self._caller.command_deadline(timeout)
        result = self._caller.call(self._completed(command, deadline), deadline)
        if check:
            result.check(self._port.vm_name)
        return result

    async def _completed(self, command: str, deadline: Deadline) -> CompletedCommand[str]:
        started = time.monotonic()
        await self._at_prompt(deadline)
        output = await self._exchange(command, deadline)
        duration = time.monotonic() - started
        returncode = 0
        if self._status is not None:
            returncode = _number(
                await self._exchange(self._status, deadline), self._status, self._port.vm_name
            )
        return CompletedCommand(command, output, "", returncode, duration)

    async def _at_prompt(self, deadline: Deadline) -> None:
        """Make sure that a prompt is waiting; an empty line asks for one."""
        if await self._shows_prompt(min(OWN_ACCORD, deadline.remaining / 4)):
            return
        start = self._log.end
        await self._port.type(self._eol.encode(), deadline)
        if await self._next_prompt(start, deadline) is None:
            raise ChannelError(
                f"{self._port.vm_name}: no prompt /{self._prompt.pattern}/ came within {deadline}; "
                f"the console shows:\n{self._log.tail(5)}"
            )

    async def _shows_prompt(self, patience: float) -> bool:
        self._log.read()
        try:
            async with asyncio.timeout(patience):
                while not self._prompt.search(self._log.tail(1)):
                    await self._port.changed.wait()
        except TimeoutError:
            return False
        return True

    async def _exchange(self, command: str, deadline: Deadline) -> str:
        start = self._log.end
        await self._port.type((command + self._eol).encode(), deadline)
        text = await self._next_prompt(start, deadline)
        if text is None:
            shown = self._log.text(start)
            raise CommandTimeout(
                f"{self._port.vm_name}: the prompt /{self._prompt.pattern}/ did not come back within "
                f"{deadline} after {command!r}; since then the console shows:\n{masked(shown)[-2000:]}",
                stdout=shown,
                stderr="",
            )
        return _without_echo(text, command)

    async def _next_prompt(self, start: int, deadline: Deadline) -> str | None:
        """The text from `start` up to a prompt at its end, or None when none came in time."""
        try:
            async with asyncio.timeout(deadline.remaining):
                while True:
                    text = self._log.text(start)
                    # A prompt straight at the beginning is the one before the command, drawn anew.
                    found = self._prompt.search(text)
                    if found is not None and "\n" in text and await self._is_quiet():
                        return text[: found.start()]
                    await self._port.changed.wait()
        except TimeoutError:
            return None

    async def _is_quiet(self) -> bool:
        end = self._log.end
        await asyncio.sleep(QUIET)
        self._log.read()
        return self._log.end == end


def _without_echo(text: str, command: str) -> str:
    first, newline, rest = text.partition("\n")
    return rest if newline and (command in first or not first.strip()) else text


def _number(text: str, status: str, vm_name: str) -> int:
    numbers = re.findall(r"-?\d+", text)
    if not numbers:
        raise ChannelError(
            f"{vm_name}: the status command {status!r} printed no number, but {text.strip()!r}"
        )
    return int(numbers[-1])
