"""The run that a manager's VMs belong to: its directory, this process's leases, the sweep of dead runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_maqet.config import Config
from pytest_maqet.management.sharing import end_shared_vms
from pytest_maqet.runs.leases import Lease
from pytest_maqet.runs.locks import held_lock
from pytest_maqet.runs.nursery import end_nursery
from pytest_maqet.runs.run_directory import RunDirectory
from pytest_maqet.runs.sweep import sweep


class RunSide:
    """One process's part in a run.

    With a `run_id` the run belongs to somebody else (xdist's controller), who ends it; without one it is
    this process's own.
    """

    def __init__(self, worker: str, run_id: str | None, config: Config) -> None:
        #: Whether VMs must end at once: the run was interrupted.
        self.in_haste = False
        self.directory = RunDirectory.create(run_id)
        #: The suite's own locks that are held now, in words.
        self.user_locks: list[str] = []
        #: What is to be told of shared VMs whose QEMU has crashed unseen, once the run is closed.
        self.crashes: list[str] = []
        self._own = run_id is None
        self._process = os.getpid()
        self._leases = {"run": self.directory.lease("run"), worker: self.directory.lease(worker)}
        self._worker = worker
        self._config = config
        if self._own:
            sweep(self.directory.path.parent)

    def lease_for(self, scope: str) -> Path:
        """The lease that keeps a VM of this scope alive."""
        return self._lease("run" if scope == "run" else self._worker).path

    def _lease(self, name: str) -> Lease:
        lease = self._leases[name]
        if name == self._worker and not lease.held:
            # A forked child: a VM that it starts must end with it, and not only with its parent.
            lease = self._leases[name] = self.directory.lease(f"{name}-{os.getpid()}")
        return lease

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
        """End the run, where it is ours, and give up the leases; idempotent.

        A forked child only gives up its own.
        """
        if self._own and self._process == os.getpid():
            self.crashes += end_shared_vms(self.directory, self._config, in_haste=self.in_haste)
        for lease in self._leases.values():
            lease.close()
        end_nursery()
        # Whoever is the last removes it: the controller, and where that is elsewhere, or dead, a worker.
        self.directory.remove()


class HostShare:
    """A worker's share in its run on a host where the controller is not.

    It is held for the whole session, by each worker of that host: what is of scope `run` there lives as long
    as they do, whether or not they have asked for it yet. Dead runs of that host are swept, as a controller
    does it on its own.
    """

    def __init__(self, run_id: str) -> None:
        """Raises StartError where there is no safe place for a run."""
        self._directory = RunDirectory.create(run_id)
        self._directory.lease("run")
        sweep(self._directory.path.parent)

    def close(self) -> None:
        """Give it up; the last one of a host removes the run's directory there. Idempotent."""
        self._directory.remove()
