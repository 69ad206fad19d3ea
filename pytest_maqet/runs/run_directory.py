"""The directory of one test run on one host, shared by all its processes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from pytest_maqet.deadline import Deadline, pauses
from pytest_maqet.errors import StartError
from pytest_maqet.runs import sweep
from pytest_maqet.runs.base_directory import base_directory
from pytest_maqet.runs.leases import PATIENCE, Lease, RunOver
from pytest_maqet.runs.vm_directory import VmDirectory, file_stem

#: The longest name of a run's directory, in bytes: part of what `base_directory` counts on.
LONGEST_ID = 12
#: How long `remove` waits for keepers that are just ending, in seconds.
KEEPERS_END = 2.0
#: For this long `remove` does not believe that somebody uses the run, in seconds: it may be another one that
#: just looks, and two that end at once would leave it to each other.
GLANCE = 0.1
_SAFE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


class RunDirectory:
    """`BASE/<run_id>/`: leases, locks and one directory for each VM; private to the user (mode 0700).

    Everyone who has it open holds its `in-use` lease; `close` or the end of the process gives that back, and
    a run that nobody uses is removed by the next sweep.
    """

    def __init__(self, path: Path, in_use: Lease) -> None:
        self.path = path
        self.run_id = path.name
        self._leases = [in_use]

    @classmethod
    def create(cls, run_id: str | None = None) -> RunDirectory:
        """Make or open the directory of the run `run_id`; a new run with an id of its own for None.

        The same id gives the same directory in every process (of the same user and environment); ids that are
        too long or strange for a path become a digest.
        Raises `StartError` when there is no safe place for it.
        """
        path = base_directory() / _directory_name(run_id or secrets.token_hex(4))
        for pause in pauses(Deadline.after(PATIENCE)):
            try:
                with contextlib.suppress(FileExistsError):
                    path.mkdir(mode=0o700)
                return cls(path, Lease.take(path / sweep.IN_USE))
            except RunOver:
                # A sweep took it for an abandoned one in the instant before the lease: once more.
                time.sleep(pause)
            except OSError as error:
                raise StartError(f"the run directory {path} cannot be made: {error.strerror}") from error
        raise StartError(f"the run directory {path} was removed each time it was made, for {PATIENCE:g} s")

    def identity(self) -> list[str]:
        """What tells a process on whatever host whether this directory is the one it knows by that path."""
        return [*_identity(self.path)]

    @classmethod
    def is_here(cls, identity: Sequence[str]) -> bool:
        """Whether the run directory that another process describes so is where this one would look for it."""
        path = Path(identity[1])
        try:
            return path.parent == base_directory() and _identity(path) == tuple(identity)
        except (StartError, OSError):
            return False

    def lease(self, name: str) -> Lease:
        """Take the run's lease of that name ("run", "main", "gw0"), making its file where there is none."""
        lease = Lease.take(_lease_path(self.path, name))
        self._leases.append(lease)
        return lease

    def new_vm_directory(self, vm_name: str) -> VmDirectory:
        """A new directory for one QEMU, with a short name that shows the VM's: `<name>-<number>`."""
        stem = file_stem(vm_name)
        number = 1
        while True:
            path = self.path / f"{stem}-{number}"
            try:
                path.mkdir(mode=0o700)
            except FileExistsError:
                number += 1
            except OSError as error:
                raise StartError(f"the VM directory {path} cannot be made: {error.strerror}") from error
            else:
                return VmDirectory(path)

    def lock_path(self, name: str) -> Path:
        """The file of the run's lock of that name, for `held_lock`."""
        locks = self.path / "locks"
        locks.mkdir(mode=0o700, exist_ok=True)
        return locks / f"{file_stem(name)}.lock"

    def close(self) -> None:
        """Give back every lease that this process has of the run; VMs that hang on them end. Idempotent."""
        for lease in self._leases:
            lease.close()
        self._leases = []

    def remove(self) -> bool:
        """Close, then remove the directory unless other processes or kept VMs use it: the last one does.

        Waits up to two seconds for keepers that are just ending. Returns whether it is gone.
        """
        if self._leases and not self._leases[0].held and os.path.lexists(self.path):
            return False  # a forked child has no say in this
        self.close()
        deadline, glance = Deadline.after(KEEPERS_END), Deadline.after(GLANCE)
        for pause in pauses(deadline):
            if not self.path.exists() or sweep.remove_if_unused(self.path):
                return True
            passing = sweep.is_ending(self.path) or sweep.is_looked_at(self.path)
            if glance.expired and not passing:
                return False
            time.sleep(pause)
        return False


def _identity(path: Path) -> tuple[str, ...]:
    """The boot of the host (random(4)), the path, and the directory itself: containers share the first."""
    found = path.stat()
    boot = ""
    with contextlib.suppress(OSError):  # not every container's /proc has it
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return boot, str(path), str(found.st_dev), str(found.st_ino)


def _lease_path(run: Path, name: str) -> Path:
    return run / f"{file_stem(name)}{sweep.LEASE_SUFFIX}"


def _directory_name(run_id: str) -> str:
    if len(run_id) <= LONGEST_ID and _SAFE_ID.fullmatch(run_id):
        return run_id
    return hashlib.sha256(run_id.encode(errors="surrogateescape")).hexdigest()[:LONGEST_ID]
