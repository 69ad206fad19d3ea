"""The run that a manager's VMs belong to: its directory, this process's leases, the sweep of dead runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_maqet.config import Config
from pytest_maqet.management.sharing import end_shared_vms
from pytest_maqet.runs.leases import Lease
from pytest_maqet.runs.locks import held_lock
from pytest_maqet.runs.run_directory import RunDirectory
from pytest_maqet.runs.sweep import sweep


class RunSide:
    """One process's part in a run.

    With a `run_id` the run belongs to somebody else (xdist's controller), who ends it; without one it is
    this process's own.
    """

    def __init__(self, worker: str, run_id: str | None, config: Config) -> None:
        self.directory = RunDirectory.create(run_id)
        #: The suite's own locks that are held now, in words.
        self.user_locks: list[str] = []
        self._own = run_id is None
        self._leases = {"run": self.directory.lease("run"), worker: self.directory.lease(worker)}
        self._worker = worker
        self._config = config
        if self._own:
            sweep(self.directory.path.parent)

    def lease_for(self, scope: str) -> Path:
        """The lease that keeps a VM of this scope alive."""
        return self._lease("run" if scope == "run" else self._worker).path

    def _lease(self, name: str) -> Lease:
        return self._leases[name]

    @contextmanager
    def user_lock(self, name: str, timeout: float, owner: str) -> Iterator[None]:
        """A named lock of the suite's own; none of ours has its file."""
        path = self.directory.lock_path(f"user-{name}")
        what = f"vm_start_lock({name!r})"
        with held_lock(path, timeout=timeout, what=what, owner=owner):
            self.user_locks.append(what)
            try:
                yield
            finally:
                self.user_locks.remove(what)

    def close(self) -> None:
        """End the run, where it is ours, and give up the leases; idempotent."""
        if self._own:
            end_shared_vms(self.directory, self._config)
        for lease in self._leases.values():
            lease.close()
        if self._own:
            self.directory.remove()
