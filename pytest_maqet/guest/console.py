"""The blocking handle of a serial port: what `vm.console` and `vm.consoles[…]` are."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pytest_maqet.deadline import Deadline
from pytest_maqet.guest.commands import CompletedCommand
from pytest_maqet.guest.console_log import ConsoleLog
from pytest_maqet.guest.guest_process import Caller
from pytest_maqet.guest.prompt_shell import PromptShell
from pytest_maqet.guest.serial_line import SerialLine
from pytest_maqet.loop import Pulse


class Expect(Protocol):
    """`vm.wait.console` for one serial port: the next match after the reader's cursor."""

    def __call__(self, pattern: str, *, timeout: float | None, since: Any) -> re.Match[str]: ...  # noqa: D102


class RunOnConsole(Protocol):
    """`vm.run` over this serial port and no other channel."""

    def __call__(  # noqa: D102
        self,
        command: str | Sequence[str],
        *,
        check: bool,
        timeout: float | None,
        input: str | bytes | None,  # noqa: A002
        env: Mapping[str, str] | None,
        cwd: str | None,
        encoding: str | None,
    ) -> CompletedCommand[Any]: ...


class Console:
    """One serial port of a VM, to read, to type on, and to run commands on.

    What it says is logged from the first byte on, in `path`, whether or not anybody reads.
    """

    def __init__(
        self,
        name: str,
        log: ConsoleLog,
        line: SerialLine,
        changed: Pulse,
        *,
        vm_name: str,
        typing: asyncio.Lock,
        call: Caller,
        deadline: Callable[[float | None], Deadline],
        position: Callable[[str], int],
        expect: Expect,
        run: RunOnConsole,
    ) -> None:
        self.name = name
        self._log = log
        self._line = line
        self._changed = changed
        self._vm_name = vm_name
        self._typing = typing
        self._call = call
        self._deadline = deadline
        self._position = position
        self._expect = expect
        self._run = run

    @property
    def path(self) -> Path:
        """The file with every byte that the port has sent."""
        return self._log.path

    def send(self, text: str | bytes, *, timeout: float | None = None) -> None:
        r"""Type `text` as it is: a line needs its own `"\n"`, Ctrl-C is `"\x03"`.

        Raises ChannelError when QEMU is gone.
        """
        deadline = self._deadline(timeout)
        data = text.encode() if isinstance(text, str) else text
        self._call(self._type(data), deadline)

    def expect(self, pattern: str, timeout: float | None = None, *, since: str = "mark") -> re.Match[str]:
        """Wait for a regular expression, as `vm.wait.console` does, with the same cursor."""
        return self._expect(pattern, timeout=timeout, since=since)

    def text(self, since: str = "start") -> str:
        """What the port has said, as plain text: since the "start", or after this thread's cursor ("mark")."""
        start = self._position(since)

        async def read() -> str:
            self._log.read()
            return self._log.text(start)

        return self._call(read(), self._deadline(None))

    def run(
        self,
        command: str | Sequence[str],
        *,
        check: bool = True,
        timeout: float | None = None,
        input: str | bytes | None = None,  # noqa: A002 - subprocess.run's word
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        encoding: str | None = "utf-8",
    ) -> CompletedCommand[Any]:
        """As `vm.run`, by a POSIX shell on this serial port; other shells: `shell`."""
        return self._run(
            command, check=check, timeout=timeout, input=input, env=env, cwd=cwd, encoding=encoding
        )

    def shell(self, prompt: str, status: str | None = None, eol: str = "\n") -> PromptShell:
        r"""Commands for what is no POSIX shell: a boot loader, a monitor, a network device.

        `prompt` is a regular expression for what it prints when it waits for a command, `status` a command
        that prints the last one's status as a number (without one, every command counts as a success), `eol`
        what ends a typed line, `"\r"` for some.
        """
        return PromptShell(
            self._log,
            self._changed,
            self._type,
            prompt=re.compile(rf"(?:{prompt})\Z", re.MULTILINE),
            status=status,
            eol=eol,
            vm_name=self._vm_name,
            call=self._call,
            deadline=self._deadline,
        )

    def __repr__(self) -> str:
        return f"<Console {self.name} of {self._vm_name}: {self.path}>"

    async def _type(self, data: bytes) -> None:
        async with self._typing:
            await self._line.send(data)
