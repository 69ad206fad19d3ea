"""Commands in a guest: what is asked for, what came back, and how a failure is told.

The same for every channel. A command that a signal ended has the status 128 + the signal's number, as a shell
reports it: that is all some channels can tell, so it is what all of them tell.
"""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

from typing_extensions import TypeVar

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import CommandError, CommandTimeout
from pytest_maqet.masking import masked

#: `str`, or `bytes` where `encoding=None` was asked for.
Text = TypeVar("Text", str, bytes, default=str)

#: The longest command with its environment, in bytes: Linux takes no argument longer than 128 KiB
#: (execve(2), MAX_ARG_STRLEN), and the quoting needs some room.
LONGEST_COMMAND = 100_000
#: Seconds a channel may take after a command's deadline to end it in the guest and fetch what it printed.
END_GRACE = 10.0

_TAIL = 2000
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class CommandRequest:
    """A command to run in the guest: a `str` for `/bin/sh -c`, or the arguments of a program.

    `env` is added to the environment that the channel gives; `cwd` is a directory in the guest.
    `encoding` is how outputs become text, None for bytes. `label` is shown in its place, if not empty.
    """

    command: str | tuple[str, ...]
    input: bytes | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    encoding: str | None = "utf-8"
    label: str = ""

    @classmethod
    def of(
        cls,
        command: str | Sequence[str],
        *,
        input: str | bytes | None = None,  # noqa: A002 - as subprocess.run has it
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        encoding: str | None = "utf-8",
    ) -> CommandRequest:
        """A checked request from what a test passes to `vm.run`.

        Raises TypeError and ValueError, before anything is sent, for what no guest could run.
        """
        words = command if isinstance(command, str) else tuple(command)
        if isinstance(input, str):
            input = input.encode(encoding or "utf-8")  # noqa: A001
        request = cls(words, input, dict(env or {}), cwd, encoding)
        request.check()
        return request

    def check(self) -> None:
        """Raise TypeError or ValueError for what no guest could run."""
        words = (self.command,) if isinstance(self.command, str) else self.command
        if not words or not words[0]:
            raise ValueError("the command is empty")
        parts = [*words, *self.env, *self.env.values(), self.cwd or ""]
        for part in parts:
            if not isinstance(part, str):
                raise TypeError(f"a command, its env and its cwd are made of str, got {part!r}")
            if "\0" in part:
                raise ValueError(f"a command cannot contain a NUL character: {part!r}")
        for name in self.env:
            if not _ENV_NAME.match(name):
                raise ValueError(f"{name!r} cannot be the name of an environment variable")
        size = sum(len(part.encode("utf-8", "surrogateescape")) for part in parts)
        if size > LONGEST_COMMAND:
            raise ValueError(
                f"the command has {size} bytes, a guest takes at most {LONGEST_COMMAND}: "
                'pass what is long as input, such as run("sh", input=script)'
            )

    def decode(self, data: bytes) -> str | bytes:
        """Output in the type that was asked for; bytes that are no text become U+FFFD."""
        return data if self.encoding is None else data.decode(self.encoding, "replace")

    def __str__(self) -> str:
        """The command as a person would type it, shortened."""
        text = self.command if isinstance(self.command, str) else shlex.join(self.command)
        text = self.label or masked(text)  # before it is cut: half a secret would be no secret any more
        return _CONTROL.sub(_escape, text if len(text) <= 300 else f"{text[:280]}… ({len(text)} characters)")


@dataclass(frozen=True)
class CommandOutcome:
    """How a command ended, as a channel reports it."""

    returncode: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class CompletedCommand(Generic[Text]):
    """A command that has ended in the guest.

    `duration` is in seconds, as seen from the host. `returncode` 128 + N means that signal N ended it.
    """

    command: str | tuple[str, ...]
    stdout: Text
    stderr: Text
    returncode: int
    duration: float

    @classmethod
    def from_outcome(
        cls, request: CommandRequest, outcome: CommandOutcome, *, duration: float
    ) -> CompletedCommand[Any]:
        """The result in the types that the request asks for."""
        stdout: Any = request.decode(outcome.stdout)
        stderr: Any = request.decode(outcome.stderr)
        return CompletedCommand(request.command, stdout, stderr, outcome.returncode, duration)

    def check(self, vm_name: str) -> None:
        """Raise CommandError when the command did not end with status 0."""
        if self.returncode == 0:
            return
        request = CommandRequest(self.command)
        raise CommandError(
            f"{vm_name}: the command {describe_status(self.returncode)}: {request}\n"
            f"{output_tails(self.stdout, self.stderr)}",
            returncode=self.returncode,
            stdout=self.stdout,
            stderr=self.stderr,
        )


def describe_status(returncode: int) -> str:
    """`ended with status 3`, with the words for the statuses that a shell gives a meaning."""
    text = f"ended with status {returncode}"
    if returncode == 126:
        return f"{text} (found, but not executable)"
    if returncode == 127:
        return f"{text} (not found in the guest)"
    if returncode > 128:
        try:
            return f"{text} (128 + {returncode - 128}: {signal.Signals(returncode - 128).name})"
        except ValueError:
            return text
    return text


def output_tails(stdout: str | bytes, stderr: str | bytes) -> str:
    """The ends of both outputs for a message; control characters are made visible."""
    return f"{_tail('stdout', stdout)}\n{_tail('stderr', stderr)}"


def command_timeout(
    vm_name: str, request: CommandRequest, deadline: Deadline, partial: CommandOutcome | None, *, ended: bool
) -> CommandTimeout:
    """The error for a command whose time is over; `partial` is what it had printed, None when unknown."""
    printed = partial or CommandOutcome(0, b"", b"")
    stdout, stderr = request.decode(printed.stdout), request.decode(printed.stderr)
    lines = [f"{vm_name}: the command did not end within {deadline}: {request}"]
    lines.append(
        "it and its children were ended in the guest" if ended else "it could not be ended and may still run"
    )
    if partial is None:
        lines.append("what it printed could not be fetched")
    else:
        lines.append(output_tails(stdout, stderr))
    return CommandTimeout(
        "\n".join(lines),
        stdout=stdout,
        stderr=stderr,
        hint="pass timeout= (seconds) if it needs longer; a background process that keeps the output open "
        "keeps the command open too: redirect it, as in `daemon >/dev/null 2>&1 &`",
    )


def _tail(name: str, output: str | bytes) -> str:
    size = len(output)
    text = output.decode("utf-8", "replace") if isinstance(output, bytes) else output
    if not text.strip():
        return f"{name}: empty"
    text = masked(text)  # before it is cut
    unit = "bytes" if isinstance(output, bytes) else "characters"
    cut = f" (last {_TAIL} of {size} {unit})" if len(text) > _TAIL else ""
    return f"{name}{cut}:\n{_CONTROL.sub(_escape, text[-_TAIL:].rstrip())}"


def _escape(match: re.Match[str]) -> str:
    return f"\\x{ord(match.group()):02x}"
