"""Why nothing happens in a VM, as far as that can be seen from outside: its process, and its run state."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pytest_maqet.runs.process_state import ProcessState
from pytest_maqet.waiting.vitals import Vitals

#: A wait of fewer seconds says nothing about how busy a guest is.
TELLING = 0.5
#: Shares of one processor below which a guest counts as idle, and above which as busy.
IDLE, BUSY = 0.05, 0.8


@dataclass(frozen=True)
class Beginning:
    """What QEMU's process looked like when a wait began."""

    at: float
    process: ProcessState | None


def beginning(vitals: Vitals) -> Beginning:
    """To be taken when a wait begins, for `standstill` at its end."""
    return Beginning(time.monotonic(), vitals.process_state())


def is_stopped(vitals: Vitals) -> bool:
    """Whether QEMU's process is stopped (SIGSTOP, a debugger), so that nothing can answer."""
    state = vitals.process_state()
    return state is not None and state.stopped


def standstill(vitals: Vitals, began: Beginning | None = None) -> str:
    """A line that says what holds the VM up, or how busy QEMU was since `began`; may be empty."""
    state = vitals.process_state()
    if state is None:
        return ""
    who = f"QEMU of {vitals.vm_name} (pid {vitals.pid})"
    if state.letter == "T":
        return f"{who} is stopped: its process is in state T, as after SIGSTOP; kill -CONT lets it go on"
    if state.letter == "t":
        return f"{who} is held by a debugger: its process is in state t"
    if state.letter == "D":
        return f"{who} waits in the kernel (state D): a disk or network file system that does not answer?"
    if vitals.powered_off is not None:
        return f"the guest has powered off ({vitals.powered_off})"
    if vitals.paused:
        return "the VM is paused: its CPUs stand still until vm.resume()"
    return _effort(who, state, began)


def _effort(who: str, now: ProcessState, began: Beginning | None) -> str:
    """How much QEMU did meanwhile: a frozen guest costs next to nothing, one in a loop a whole processor."""
    if began is None or began.process is None:
        return ""
    span = time.monotonic() - began.at
    if span < TELLING:
        return ""
    used = max(0.0, now.cpu_seconds - began.process.cpu_seconds)
    words = ""
    if used < IDLE * span:
        words = ": its guest is idle or frozen"
    elif used > BUSY * span:
        words = ": its guest is busy"
    return f"{who} used {used:.1f} s of processor time in {span:.1f} s{words}"
