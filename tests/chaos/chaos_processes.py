"""The processes of one run of the victim suite, found by a mark in their environment, and by nothing else.

Every process that a run starts inherits the variable with the run's mark, whoever its parent is by now.
"""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pytest_maqet.runs import keeper

MARK = "QEMU_CHAOS_MARK"  # by its beginning it is passed on to QEMU, too: see runs/child_environment.py
_ROOM = str(Path(keeper.__file__).parent)


@dataclass(frozen=True)
class Process:
    """A process as /proc shows it: its start time tells it from a later one with the same pid."""

    pid: int
    parent: int
    argv: tuple[str, ...]
    started: int

    @property
    def is_qemu(self) -> bool:
        """Whether it is a QEMU that runs a machine (not one that is asked or probed)."""
        return Path(self.argv[0]).name.startswith("qemu-system") and "-pidfile" in self.argv

    @property
    def of_runs(self) -> bool:
        """Whether it is a program of the room `runs`: a keeper, or what keepers come from."""
        return any(argument.startswith(_ROOM) for argument in self.argv[1:])

    def __str__(self) -> str:
        return f"{self.pid} ({' '.join(self.argv)[:100]})"


def marked(mark: str) -> list[Process]:
    """The living processes of the run with that mark; a zombie has ended."""
    needle = f"{MARK}={mark}".encode()
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            process = _marked(int(entry.name), needle)
            if process is not None:
                found.append(process)
    return found


def _marked(pid: int, needle: bytes) -> Process | None:
    try:
        folder = Path(f"/proc/{pid}")
        if needle not in (folder / "environ").read_bytes().split(b"\0"):
            return None
        fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        argv = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:  # it ended meanwhile, or is somebody else's
        return None
    if fields[0] in "ZX" or not argv:
        return None
    return Process(pid, int(fields[1]), tuple(argv), int(fields[19]))


class Family:
    """The processes of a run at one moment, by what they are."""

    def __init__(self, mark: str, first: int) -> None:
        self.all = {process.pid: process for process in marked(mark)}
        self._first = first
        self.qemus = [process for process in self.all.values() if process.is_qemu]
        parents = {qemu.parent for qemu in self.qemus}
        self.keepers = [one for one in self.all.values() if one.of_runs and one.pid in parents]
        owners = {self._first, *(worker.pid for worker in self.workers())}
        self.nurseries = [one for one in self.all.values() if one.of_runs and one.parent in owners]

    def of(self, kind: str, stores: list[Path]) -> list[list[Process]]:
        """The targets of that kind: each a group that gets the signal together. `stores` have templates."""
        controller = [self.all[self._first]] if self._first in self.all else []
        if kind in ("session", "owners"):
            return [controller + self.workers()] if controller else []
        alone = {
            "controller": controller,
            "worker": self.workers(),
            "nursery": self.nurseries,
            "keeper": self.keepers,
            "qemu": self.qemus,
        }
        found = (
            alone[kind] if kind in alone else [one for store in stores for one in self._makers(kind, store)]
        )
        return [[one] for one in found]

    def workers(self) -> list[Process]:
        """xdist's workers."""
        return [
            one
            for one in self.all.values()
            if one.parent == self._first and not one.of_runs and Path(one.argv[0]).name.startswith("python")
        ]

    def _makers(self, kind: str, store: Path) -> list[Process]:
        drafts = drafts_in(store)
        qemus = [one for one in self.qemus if any(str(draft) in " ".join(one.argv) for draft in drafts)]
        if kind == "maker-qemu":
            return qemus
        if kind == "maker-keeper":
            return [self.all[one.parent] for one in qemus if one.parent in self.all]
        return [self.all[pid] for pid in _lock_owners(store) if pid in self.all]

    def vms_of(self, owner: Process) -> list[Process]:
        """Keepers and QEMUs of the VMs that end with this process: the keepers wait for a lease it holds."""
        held = {path for path in _open_files(owner) if path.endswith(".lease")}
        # Others hold these as well.
        held = {path for path in held if Path(path).name not in ("run.lease", "in-use.lease")}
        keepers = [one for one in self.keepers if held.intersection(_open_files(one))]
        pids = {keeper.pid for keeper in keepers}
        return keepers + [qemu for qemu in self.qemus if qemu.parent in pids]


def _open_files(process: Process) -> set[str]:
    found = set()
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{process.pid}/fd"):
            with suppress(OSError):
                found.add(os.readlink(entry.path))  # noqa: PTH115 - a string is all that is wanted
    return found


def drafts_in(store: Path) -> list[Path]:
    """The folders of templates that are being made."""
    with suppress(OSError):
        linked = {link.readlink().name for link in store.iterdir() if link.is_symlink()}
        return [
            one
            for one in store.iterdir()
            if "-" in one.name and not one.is_symlink() and one.name not in linked
        ]
    return []


def _lock_owners(store: Path) -> list[int]:
    found = []
    for record in (store / "locks").glob("*.holder"):
        with suppress(OSError, ValueError, KeyError):
            found.append(int(json.loads(record.read_text())["pid"]))
    return found


def send(process: Process, number: int) -> bool:
    """Signal that very process; whether it was there."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        # Only with the pidfd in hand is it certain that the pid is still the same process's.
        if not alive(process):
            return False
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def alive(process: Process) -> bool:
    """Whether it still runs; a zombie does not."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] not in "ZX" and int(fields[19]) == process.started


def gone_after(processes: list[Process], patience: float) -> float | None:
    """Seconds until all of these have ended, or None when they have not within `patience` seconds."""
    began = time.monotonic()
    while any(alive(process) for process in processes):
        if time.monotonic() - began > patience:
            return None
        time.sleep(0.005)
    return time.monotonic() - began


def end_all(mark: str) -> None:
    """End whatever is left of that run, so that the next round begins clean."""
    for _ in range(100):
        left = marked(mark)
        if not left:
            return
        for process in left:
            send(process, signal.SIGKILL)
        time.sleep(0.02)
