"""What the kernel tells of a process: whether it is stopped or hangs, and the processor time it has used."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
# Counted from the field after the name, which may hold blanks and parentheses (proc_pid_stat(5)).
_STATE, _UTIME, _STIME = 0, 11, 12


@dataclass(frozen=True)
class ProcessState:
    """One look at a process.

    `letter` is the state as in proc_pid_stat(5): R runs, S sleeps, D waits in the kernel and cannot be
    interrupted, T is stopped (SIGSTOP), t is held by a debugger, Z is dead. `cpu_seconds` is the processor
    time of all its threads so far.
    """

    letter: str
    cpu_seconds: float

    @property
    def stopped(self) -> bool:
        """Whether it does not run until somebody lets it."""
        return self.letter in {"T", "t"}


def process_state(pid: int) -> ProcessState | None:
    """The state of that process; None when there is none or /proc does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        ticks = int(fields[_UTIME]) + int(fields[_STIME])
        return ProcessState(fields[_STATE].decode(), ticks / _TICKS)
    except (OSError, IndexError, ValueError):
        return None
