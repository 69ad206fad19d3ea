"""Who uses a VM, and who left it unusable: written into the VM's directory, where others of the run read it.

The worker that has to replace a `run`-scoped VM is seldom the one that broke it, and a worker that crashed
can tell nothing any more. So each process notes in the VM's directory which of its tests uses it; the note
goes with the end of the test, and stays when the process is killed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pytest_maqet.management.records import Spoiled
from pytest_maqet.runs.private_files import write_private
from pytest_maqet.runs.vm_directory import VmDirectory, file_stem

_USER = "user-"
_CULPRITS = "culprits.jsonl"


@dataclass(frozen=True)
class User:
    """A test that uses a VM: the VM's name, the test's id, its worker."""

    vm: str
    test: str
    worker: str


class Usage:
    """The notes of one process; one that cannot be written (full disk, VM that is gone) is left out."""

    def __init__(self, worker: str, test: Callable[[], str]) -> None:
        self._worker = worker
        self._test = test

    def begin(self, vm: str, directory: VmDirectory) -> None:
        """The current test uses this VM from here on."""
        user = User(vm, self._test(), self._worker)
        with suppress(OSError):
            write_private(self._note(directory), json.dumps(asdict(user)))

    def end(self, directory: VmDirectory) -> None:
        """The test is over. Idempotent."""
        with suppress(OSError):
            self._note(directory).unlink()

    def confess(self, vm: str, directory: VmDirectory, reason: str) -> Spoiled:
        """The current test has left the VM unusable."""
        spoiled = Spoiled(vm, reason, self._test(), self._worker, directory.path.name)
        with suppress(OSError), (directory.path / _CULPRITS).open("a", encoding="utf-8") as notes:
            notes.write(json.dumps(asdict(spoiled)) + "\n")
        return spoiled

    def culprits(self, vm: str, directory: VmDirectory, reason: str) -> list[Spoiled]:
        """The tests that left this VM unusable; while none has said so, those of others that use it now.

        The latter are one that has not ended yet, or that its worker crashed in.
        """
        with suppress(OSError):
            notes = (directory.path / _CULPRITS).read_text(encoding="utf-8")
            return [Spoiled(**json.loads(line)) for line in notes.splitlines()]
        return [
            Spoiled(vm, reason, user.test, user.worker, directory.path.name)
            for user in _users(directory)
            if user.worker != self._worker
        ]

    def _note(self, directory: VmDirectory) -> Path:
        return directory.path / f"{_USER}{file_stem(self._worker)}"


def is_blamed(directory: VmDirectory) -> bool:
    """Whether a test has said that it has left this VM unusable."""
    return (directory.path / _CULPRITS).exists()


def used_by(run: Path, worker: str) -> list[tuple[User, VmDirectory]]:
    """The VMs in a run's directory that a test of this worker uses, or used when the worker crashed."""
    return [
        (user, VmDirectory(note.parent))
        for note in sorted(run.glob(f"*/{_USER}{file_stem(worker)}"))
        for user in _users(VmDirectory(note.parent))
        if user.worker == worker
    ]


def _users(directory: VmDirectory) -> Iterator[User]:
    for note in sorted(directory.path.glob(f"{_USER}*")):
        with suppress(OSError, ValueError, TypeError):  # it went meanwhile, or is only half written
            yield User(**json.loads(note.read_text(encoding="utf-8")))
