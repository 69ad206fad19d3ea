"""The blocking handle of a serial port: what `vm.console` and `vm.consoles[…]` are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pytest_maqet.guest.caller import Caller
from pytest_maqet.guest.commands import CompletedCommand
from pytest_maqet.guest.prompt_shell import PromptShell
from pytest_maqet.guest.serial_port import SerialPort

#: How many seconds after a panic a call may still learn that its typing has arrived: it may be the cause.
TYPED = 0.05


class ConsoleOwner(Caller, Protocol):
    """What a console needs of its VM's handle; `name` is the port's."""

    def console_position(self, name: str, since: str) -> int:
        """Where text `since` "mark", "start" or "now" begins."""
        ...

    def expect_on_console(
        self, name: str, pattern: str, *, timeout: float | None, since: str
    ) -> re.Match[str]:
        """`vm.wait.console` on this port."""
        ...

    def run_on_console(
        self, name: str, command: str | Sequence[str], *, check: bool, timeout: float | None, **request: Any
    ) -> CompletedCommand[Any]:
        """`vm.run` over this port and no other channel; `request` as for `CommandRequest.of`."""
        ...


class Console:
    """One serial port of a VM, to read, to type on, and to run commands on.

    What it says is logged from the first byte on, in `path`, whether or not anybody reads.
    """

    def __init__(self, port: SerialPort, owner: ConsoleOwner) -> None:
        self._port = port
        self._owner = owner

    @property
    def name(self) -> str:
        """Its name in `serial:`."""
        return self._port.name

    @property
    def path(self) -> Path:
        """The file with every byte that the port has sent."""
        return self._port.log.path

    def send(self, text: str | bytes, *, timeout: float | None = None) -> None:
        r"""Type `text` as it is: a line needs its own `"\n"`, Ctrl-C is `"\x03"`.

        `timeout` in seconds (default: `timeouts: command`). Raises ChannelError when QEMU is gone, or
        the guest has not taken the text in time.
        """
        data = text.encode() if isinstance(text, str) else text
        deadline = self._owner.command_deadline(timeout)
        self._owner.call(self._port.type(data, deadline), deadline, grace=TYPED)

    def expect(self, pattern: str, timeout: float | None = None, *, since: str = "mark") -> re.Match[str]:
        """Wait for a regular expression, as `vm.wait.console` does, with the same cursor."""
        return self._owner.expect_on_console(self.name, pattern, timeout=timeout, since=since)

    def text(self, since: str = "start") -> str:
        """What the port has said, as plain text: from the "start", or from this thread's cursor ("mark")."""
        start = self._owner.console_position(self.name, since)

        async def read() -> str:
            self._port.log.read()
            return self._port.log.text(start)

        return self._owner.call(read(), self._owner.command_deadline(None))

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
        return self._owner.run_on_console(
            self.name, command, check=check, timeout=timeout, input=input, env=env, cwd=cwd, encoding=encoding
        )

    def shell(self, prompt: str, status: str | None = None, eol: str = "\n") -> PromptShell:
        r"""Commands for what is no POSIX shell: a boot loader, a monitor, a network device.

        `prompt` is a regular expression for what it prints when it waits for a command, `status` a command
        that prints the last one's status as a number (without one, every command counts as a success), `eol`
        what ends a typed line, `"\r"` for some.
        """
        pattern = re.compile(rf"(?:{prompt})\Z", re.MULTILINE)
        return PromptShell(self._port, self._owner, prompt=pattern, status=status, eol=eol)

    def __repr__(self) -> str:
        return f"<Console {self.name} of {self._port.vm_name}: {self.path}>"
