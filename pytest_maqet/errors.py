"""Every exception of the package; all are `MaqetError`.

A message says what was wanted, what was found, where, and what to do. Structured facts are attributes.
Every layer may raise these, so nothing here imports more than what makes text fit to be shown: in messages
secrets are masked and control characters made visible, attributes have what was found as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_maqet.masking import masked
from pytest_maqet.visible_text import visible


class MaqetError(Exception):
    """Base of all errors of pytest-maqet.

    `hint` is what the reader can do about it; it is the last paragraph of the message.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = visible(masked(message))
        self.hint = visible(masked(hint)) if hint else hint
        super().__init__(self.message)

    def add_cause(self, line: str) -> None:
        """Say one thing more about why it happened, where that is not said yet."""
        if line and line not in self.message:
            self.message = f"{self.message}\n{line}"

    def __str__(self) -> str:
        """The message, then the hint on a line of its own."""
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class ConfigError(MaqetError):
    """The configuration (YAML, option, environment or marker) is wrong; nothing was started.

    `problems` holds one line per fault, each with file:line:column and key path where they are known.
    """

    def __init__(self, message: str, *, problems: Sequence[str] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(visible(masked(problem)) for problem in problems) or (self.message,)


class StartError(MaqetError):
    """A VM could not be brought up: QEMU refused, or did not verify, or its image could not be had.

    `passing` when the next try may well succeed: somebody killed QEMU, which is not the VM's fault.
    """

    def __init__(self, message: str, *, passing: bool = False, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.passing = passing


class NoRoom(StartError):
    """There is no memory for one more VM, and waiting for some would not help; see `--maqet-max-memory`."""


class LockTimeout(MaqetError):
    """A lock was not free in time; `holder` names who has it."""

    def __init__(self, message: str, *, holder: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.holder = holder


class WaitTimeout(MaqetError):
    """A wait ended at its deadline; the message says what was awaited, how long, and what was seen last."""


class GuestPanic(MaqetError):
    """The guest panicked, or its console showed a pattern of `fail_on`.

    `pattern` is the name (or the regular expression) that was found, `text` the console line;
    `pattern` is "pvpanic" when the guest told QEMU by itself.
    """

    def __init__(self, message: str, *, pattern: str, text: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.pattern = pattern
        self.text = text


class QemuDied(MaqetError):
    """The QEMU process ended while it was still needed.

    `code` is its exit status, or None when `signal` (a number) ended it; `stderr` is what it said last.
    """

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        signal: int | None = None,
        stderr: str = "",
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.signal = signal
        self.stderr = stderr


class DiskError(MaqetError):
    """A disk of the host, mostly a full one, could not be written or read: QEMU has paused the VM."""


class CommandError(MaqetError):
    """A command in the guest ended with a status other than 0 (and `check` was true).

    `returncode`, `stdout` and `stderr` are the command's, outputs in the type the caller asked for.
    """

    def __init__(
        self,
        message: str,
        *,
        returncode: int,
        stdout: str | bytes,
        stderr: str | bytes,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr


class CommandTimeout(MaqetError):
    """A command in the guest did not end in time; it was ended in the guest where the channel can do that."""

    def __init__(
        self, message: str, *, stdout: str | bytes = "", stderr: str | bytes = "", hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.stdout = stdout
        self.stderr = stderr


class QMPCommandError(MaqetError):
    """QEMU refused a QMP command.

    `error_class` and `description` are QEMU's own; `command` and `arguments` are what was sent.
    """

    def __init__(
        self,
        message: str,
        *,
        error_class: str,
        description: str,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.error_class = error_class
        self.description = description
        self.command = command
        self.arguments = dict(arguments or {})


class ChannelError(MaqetError):
    """No way into the guest: the agent, ssh or the serial shell does not answer, or broke while in use."""


class NotSupported(MaqetError):
    """This VM or this version cannot do that; the message says what would make it work."""
