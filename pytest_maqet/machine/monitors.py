"""Which of a VM's monitors this process may use: each serves one client, so each is claimed by a lock."""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack

from pytest_maqet.errors import StartError
from pytest_maqet.runs.unshared import Unshared
from pytest_maqet.runs.vm_directory import VmDirectory


def claim_monitor(directory: VmDirectory, count: int, stack: ExitStack) -> int:
    """Claim the first free monitor and return its number; `stack` gives it back when closed.

    The last monitor is never claimed: it is kept for a person. The claim is a lock of the kernel's, so a
    process that dies gives its monitor back. Raises StartError when all are taken.
    """
    for number in range(max(1, count - 1)):
        descriptor = os.open(directory.monitor_claim(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        stack.callback(Unshared(descriptor).close)
        return number
    raise StartError(
        f"all {count} QMP monitors of the VM in {directory.path} are taken by other processes",
        hint="more processes share this VM than its run has workers",
    )
