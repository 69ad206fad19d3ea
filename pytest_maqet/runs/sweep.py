"""Removing what dead runs left behind, and only that.

A run is dead when all its leases and all its keepers' locks are free. While it is looked at and removed, the
sweep holds every lease exclusively and moves the directory away first: a process that comes in between finds
that its lease leads nowhere any more, and nobody ever works in half a directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from pytest_maqet.runs.base_directory import base_directory
from pytest_maqet.runs.lock_holders import is_locked, kill_holder
from pytest_maqet.runs.trees import remove_tree
from pytest_maqet.runs.vm_directory import VmDirectory

LEASE_SUFFIX = ".lease"
#: The lease that everyone who has the run open holds; it makes a directory a run.
IN_USE = f"in-use{LEASE_SUFFIX}"
#: What a dead run is called while it is removed.
DOOMED = ".maqet-dead-"


def sweep(base: Path | None = None) -> list[Path]:
    """Remove every dead run below `base` (default: the base directory of this user); returns their paths.

    Safe beside other sweeps, running and starting runs. What has no `in-use` lease is no run, and left alone,
    as are symbolic links and what belongs to others.
    """
    base = base or base_directory()
    removed = []
    for run in own_directories(base):
        if run.name.startswith(DOOMED):
            bury(run)  # a sweep was killed at it
        elif remove_if_unused(run):
            removed.append(run)
    return removed


def remove_if_unused(run: Path) -> bool:
    """Remove the run's directory if nobody uses it; returns whether this call did."""
    with claimed(run) as ours:
        if not ours or live_keepers(run):
            return False
        doomed = run.with_name(f"{DOOMED}{run.name}-{secrets.token_hex(4)}")
        try:
            run.rename(doomed)
        except OSError:
            return False
        bury(doomed)
    return True


def bury(doomed: Path) -> bool:
    """End what still runs in a run that was moved away, and remove it; whether it is gone."""
    for vm in own_directories(doomed):
        kill_stray(VmDirectory(vm))
    return remove_tree(doomed)


def is_ending(run: Path) -> bool:
    """Whether nobody holds a lease of the run, and all that is left are keepers about to end their QEMU."""
    with claimed(run) as ours:
        keepers = live_keepers(run)
    return ours and bool(keepers) and not any(vm.keep_file.exists() for vm in keepers)


def is_looked_at(run: Path) -> bool:
    """Whether somebody has a lease exclusively: a keeper that was just given it, or a sweep; not for long."""
    for lease in run.glob(f"*{LEASE_SUFFIX}"):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            if not _lock_now(lease, held, fcntl.LOCK_SH):
                return True
    return False


@contextlib.contextmanager
def claimed(run: Path) -> Iterator[bool]:
    """Hold all leases of the run exclusively; False when one of them is in use (or the run is gone)."""
    with contextlib.ExitStack() as held:
        try:
            # `in-use` first: whoever opens the run from now on waits for us before any other lease.
            leases = [run / IN_USE, *sorted(run.glob(f"*{LEASE_SUFFIX}"))]
            ours = all(_lock_now(lease, held) for lease in dict.fromkeys(leases))
        except OSError:
            ours = False
        yield ours


def _lock_now(lease: Path, held: contextlib.ExitStack, how: int = fcntl.LOCK_EX) -> bool:
    fd = os.open(lease, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    held.callback(os.close, fd)
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def live_keepers(run: Path) -> list[VmDirectory]:
    """The VMs of a run whose keepers live."""
    directories = [VmDirectory(path) for path in own_directories(run)]
    return [vm for vm in directories if is_locked(vm.keeper_lock)]


def kill_stray(vm: VmDirectory) -> None:
    """End a QEMU that lost its keeper and yet lives: the lock on its pid file tells which it is."""
    kill_holder(vm.qemu_pid_file)


def own_directories(parent: Path) -> list[Path]:
    """The real directories of ours in `parent`, none of which is a symbolic link."""
    found = []
    with contextlib.suppress(OSError):
        for entry in sorted(parent.iterdir()):
            with contextlib.suppress(OSError):
                status = entry.lstat()
                if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                    found.append(entry)
    return found
