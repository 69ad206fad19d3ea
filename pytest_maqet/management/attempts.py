"""The books of one start: its record, and the memory of those that failed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from pytest_maqet.config import VmConfig
from pytest_maqet.errors import MaqetError
from pytest_maqet.management.failures import FailureMemory
from pytest_maqet.management.records import Ledger, StartRecord


class Attempts:
    """Every attempt of one process to bring a VM up."""

    def __init__(self, failures: FailureMemory, ledger: Ledger) -> None:
        self._failures = failures
        self._ledger = ledger

    @contextmanager
    def one(self, config: VmConfig, scope: str, test: str, *, again: bool) -> Iterator[StartRecord]:
        """The block brings the VM up; whether it did, and when, is noted in the record that it is given.

        A start that failed before in this run fails at once with that cause, unless the test is tried
        `again` as a whole.
        """
        self._check(config, again=again)
        record = self._ledger.begin(config.name, scope, test)
        try:
            yield record
        except BaseException as error:
            record.how = "failed"
            record.error = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            self._failures.remember(config, error, test=test, worker=self._ledger.worker)
            raise
        record.ready = time.time()

    def _check(self, config: VmConfig, *, again: bool) -> None:
        if again:
            return
        try:
            self._failures.check(config)
        except MaqetError:
            self._ledger.remembered += 1
            raise
