"""How a QEMU process ended, as its keeper wrote it down."""

from __future__ import annotations

import json
import os
import signal as signals
from dataclasses import dataclass

from pytest_maqet.runs.vm_directory import VmDirectory

#: What the user can make of a signal that QEMU does not get for fun.
_EXPLAINED: dict[int, str] = {
    signals.SIGKILL: "someone or the kernel's out-of-memory killer ended it",
    signals.SIGBUS: "the file behind the guest's RAM could not be filled: is /dev/shm or the disk full?",
    signals.SIGXFSZ: "a file grew over the limit for file sizes (ulimit -f)",
    signals.SIGABRT: "QEMU gave up by itself; its stderr says why",
    signals.SIGSEGV: "QEMU crashed",
}
#: Signals that a QEMU does not send to itself: a person's, or those of the kernel that is short of memory.
_FROM_OUTSIDE = frozenset({signals.SIGKILL, signals.SIGTERM, signals.SIGINT, signals.SIGHUP})
#: Signals by which a process ends through a fault of its own.
_CRASHES = frozenset({signals.SIGSEGV, signals.SIGABRT, signals.SIGBUS, signals.SIGILL, signals.SIGFPE})
#: What QEMU says when it obeys one of them and ends with status 0 (softmmu/runstate.c).
_TERMINATED = "terminating on signal"


@dataclass(frozen=True)
class Exit:
    """How QEMU ended: `code` (exit status) or `signal` (its number), and the same in words.

    Both are None when nobody knows: QEMU could not be executed, or its keeper was killed with it.
    """

    code: int | None
    signal: int | None
    reason: str

    @property
    def crashed(self) -> bool:
        """Whether it ended through a fault of its own: whatever it was asked for, that was not it."""
        return self.signal in _CRASHES


#: A QEMU that died with its keeper: nobody was left to hear how.
UNKNOWN = Exit(None, None, "ended together with its keeper, which was killed; its exit status is not known")


def ended_by_somebody(code: int | None, signal: int | None, stderr: str) -> bool:
    """Whether a QEMU that ended so was killed from outside, or its keeper was, and it with that."""
    if code is None:
        return signal is None or signal in _FROM_OUTSIDE
    return _TERMINATED in stderr


def read_exit(directory: VmDirectory) -> Exit | None:
    """The end of that VM's QEMU, or None when none is recorded (it is alive, or its keeper was killed)."""
    try:
        text = directory.exit_file.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        found = json.loads(text)
        return _in_words(found)
    except (ValueError, TypeError, AttributeError, KeyError):
        return Exit(None, None, f"ended, but its exit status in {directory.exit_file} is not readable")


def _in_words(found: dict[str, object]) -> Exit:
    code, number, errno, cause = (found.get(key) for key in ("code", "signal", "errno", "cause"))
    if isinstance(errno, int):
        return Exit(None, None, f"could not be executed: {os.strerror(errno)}")
    if isinstance(code, int):
        return Exit(code, None, f"exited with status {code}")
    if isinstance(number, int):
        why = cause or _EXPLAINED.get(number)
        return Exit(None, number, f"killed by {_signal_words(number)}" + (f": {why}" if why else ""))
    raise ValueError(found)


def _signal_words(number: int) -> str:
    try:
        return f"signal {number} ({signals.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
