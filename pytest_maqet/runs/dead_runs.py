"""What dead runs have left on this host: directories, and processes that should have ended with them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from pytest_maqet.deadline import Deadline, pauses
from pytest_maqet.runs import sweep
from pytest_maqet.runs.base_directory import existing_bases
from pytest_maqet.runs.keeper_process import readable
from pytest_maqet.runs.leftover import IN_USE_NOW, Found, Leftover, ago
from pytest_maqet.runs.lock_holders import is_locked, lock_holder, open_holder
from pytest_maqet.runs.trees import last_used, size_of
from pytest_maqet.runs.vm_directory import VmDirectory

#: A keeper whose run is over ends its QEMU and itself within this many seconds, or it is stuck.
KEEPER_ENDS = 2.0
#: A keeper that is given its lease, or another sweep, has it for a moment only: less than this, in seconds.
_LOOK = 0.3
#: How long a killed process may take to be gone, in seconds.
_KILLED = 2.0


def dead_runs() -> Found:
    """Runs whose users are all gone, in every base directory of this user, and their stray processes.

    A stray is a keeper that should have ended, or a QEMU without one. Takes up to `KEEPER_ENDS` seconds where
    keepers are just ending.
    """
    bases, alone = existing_bases()
    found = Found(foreign=alone)
    for base in bases:
        for run in sweep.own_directories(base):
            _look_at(run, found)
        found.foreign += _foreign(base)
    return found


def _look_at(run: Path, found: Found) -> None:
    if run.name.startswith(sweep.DOOMED):
        reason = "a sweep that removed it was interrupted"
        found.leftovers.append(Leftover("run", run, size_of(run), reason, partial(_bury, run)))
        return
    if not (run / sweep.IN_USE).is_file():
        return  # no run, and told as such
    if _being_used(run):
        found.used.append(f"run {run}")
        return
    strays = list(_strays(run))
    if any(stray.reason == _KEPT for stray in strays):
        found.used.append(f"run {run} (a VM of it was kept)")
        return
    nameless = [vm.keeper_lock for vm in sweep.live_keepers(run) if lock_holder(vm.keeper_lock) is None]
    if any(is_locked(lock) for lock in nameless):  # else it has just ended
        found.used.append(f"run {run} (by a process of another container)")
        return
    found.leftovers += strays
    reason = f"its users ({_users(run)}) are gone, last used {ago(last_used(run))}"
    found.leftovers.append(Leftover("run", run, size_of(run), reason, partial(_remove, run)))


_KEPT = "it was kept"


def _being_used(run: Path) -> bool:
    """Whether somebody holds a lease of the run, and not just for the moment of a look at it."""
    for pause in pauses(Deadline.after(_LOOK)):
        with sweep.claimed(run) as ours:
            if ours:
                return False
        time.sleep(pause)
    return True


def _users(run: Path) -> str:
    names = sorted(
        lease.name.removesuffix(sweep.LEASE_SUFFIX) for lease in run.glob(f"*{sweep.LEASE_SUFFIX}")
    )
    return ", ".join(name for name in names if name not in ("in-use", "run")) or "nobody ever used a VM"


def _strays(run: Path) -> Iterable[Leftover]:
    """Processes of a run that nobody uses. Those that are just ending are waited for."""
    for pause in pauses(Deadline.after(KEEPER_ENDS)):
        if not sweep.is_ending(run):
            break
        time.sleep(pause)
    for path in sweep.own_directories(run):
        vm = VmDirectory(path)
        keeper = lock_holder(vm.keeper_lock)
        if keeper is not None:
            reason = _KEPT if vm.keep_file.exists() else "a keeper that should have ended: its run is over"
            yield _process(run, vm.keeper_lock, keeper, reason)
        qemu = lock_holder(vm.qemu_pid_file)
        if qemu is not None and keeper is None:
            yield _process(run, vm.qemu_pid_file, qemu, "a QEMU that has lost its keeper: its run is over")


def _process(run: Path, lock: Path, pid: int, reason: str) -> Leftover:
    return Leftover("process", Path(f"/proc/{pid}"), 0, reason, partial(_end, run, lock))


def _end(run: Path, lock: Path) -> str | None:
    """End the process that holds this lock, if its run is still over. QEMU goes with its keeper."""
    with sweep.claimed(run) as ours:
        if not ours:
            return None if not os.path.lexists(run) else IN_USE_NOW
        stray = open_holder(lock)
        if stray is None:
            return None
        try:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(stray, signal.SIGKILL)
            return None if readable(stray, _KILLED) else "it does not end although it was killed"
        finally:
            os.close(stray)


def _remove(run: Path) -> str | None:
    if sweep.remove_if_unused(run):
        doomed = [path for path in run.parent.glob(f"{sweep.DOOMED}{run.name}-*") if not sweep.bury(path)]
        return f"not all of it can be removed; the rest is {doomed[0]}" if doomed else None
    if not os.path.lexists(run):
        return None  # a run that began meanwhile has swept it
    return IN_USE_NOW if _being_used(run) else "it cannot be removed"


def _bury(run: Path) -> str | None:
    return None if sweep.bury(run) else "not all of it can be removed"


def _foreign(base: Path) -> list[str]:
    """What lies in a base directory and is no run of ours."""
    ours = set(sweep.own_directories(base))
    found = []
    with contextlib.suppress(OSError):
        for entry in sorted(base.iterdir()):
            is_run = entry.name.startswith(sweep.DOOMED) or (entry / sweep.IN_USE).is_file()
            if entry not in ours or not is_run:
                found.append(f"{entry}: it is no run of this user")
    return found
