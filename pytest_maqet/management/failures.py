"""The memory of starts that failed: the same start is not tried again in a run.

A VM that cannot start would otherwise cost every test that uses it the whole ready time-out, on every worker.
Only finished failures of the VM itself count: an interrupted start, a lock that was not free, a full disk or
a QEMU that somebody killed say nothing about the next try.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from pytest_maqet.errors import ConfigError, DiskError, LockTimeout, MaqetError, NoRoom, StartError
from pytest_maqet.management.host_faults import is_passing
from pytest_maqet.runs.private_files import write_private
from pytest_maqet.waiting.host_disk import FULL

#: Errors that say nothing about the next try.
_PASSING = (LockTimeout, ConfigError, NoRoom, DiskError)


class FailureMemory:
    """Failed starts of a run, in files that all its workers read."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def check(self, name: str, key: str) -> None:
        """Raise StartError with the first failure's cause when the start of that key failed before."""
        try:
            found = json.loads(self._file(key).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        raise StartError(
            f"{name} is not started again: the same start failed before in this run, "
            f"in {found['test']} on {found['worker']}:\n{found['cause']}",
        )

    def remember(self, key: str, error: BaseException, *, test: str, worker: str) -> None:
        """Write a failure down, if it is one that would come again; the first one stays."""
        if not lasting(error):
            return
        record = {"test": test, "worker": worker, "cause": f"{type(error).__name__}: {error}"}
        draft = self._directory / f".{os.getpid()}-{key}"
        with suppress(OSError):  # told already, or no room: the failure itself matters more than its record
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(draft, json.dumps(record))
            os.link(draft, self._file(key))
        with suppress(OSError):
            draft.unlink()

    def _file(self, key: str) -> Path:
        return self._directory / f"{key}.json"


def lasting(error: BaseException) -> bool:
    """Whether a failure is the VM's own and would come again."""
    if not isinstance(error, MaqetError) or isinstance(error, _PASSING):
        return False
    return not is_passing(error) and FULL not in str(error)
