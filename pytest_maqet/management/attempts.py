"""The books of one start: its record, and the memory of those that failed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from pytest_maqet.errors import MaqetError
from pytest_maqet.management.failures import FailureMemory
from pytest_maqet.management.host_faults import told
from pytest_maqet.management.records import Ledger, StartRecord
from pytest_maqet.management.wishes import Wanted


class Attempts:
    """Every attempt of one process to bring a VM up.

    `test` says which one runs now, and `again` whether it is tried again as a whole after a failure.
    """

    def __init__(self, failures: FailureMemory, ledger: Ledger) -> None:
        self.test = ""
        self.again = False
        self._failures = failures
        self._ledger = ledger

    @contextmanager
    def one(self, wanted: Wanted) -> Iterator[StartRecord]:
        """The block brings the VM up; whether it did, and when, is noted in the record that it is given.

        A start that failed before in this run fails at once with that cause, unless the test is tried again.
        """
        self.check(wanted)
        record = self._ledger.begin(wanted.config.name, wanted.scope.kind, self.test)
        try:
            with told(wanted.config.name):
                yield record
        except BaseException as error:
            record.how = "failed"
            record.error = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            self.remember(wanted, error)
            raise
        record.ready = time.time()

    def check(self, wanted: Wanted) -> None:
        """Raise StartError when this start has failed before, in whichever process of the run."""
        if self.again:
            return
        try:
            self._failures.check(wanted.config.name, _key(wanted))
        except MaqetError:
            self._ledger.remembered += 1
            raise

    def remember(self, wanted: Wanted, error: BaseException) -> None:
        """Note a failure for all processes of the run; idempotent."""
        self._failures.remember(_key(wanted), error, test=self.test, worker=self._ledger.worker)


def _key(wanted: Wanted) -> str:
    """What fails together: a VM's configuration, and the template that it must be a clone of."""
    template = wanted.template.key if wanted.template is not None else ""
    return f"{wanted.config.key}{template}"
