"""The parts of the manager that need no VM."""

from __future__ import annotations

import threading
import time

import pytest

from pytest_maqet.management.parallel import at_once
from pytest_maqet.management.records import Ledger, Spoiled, merged
from pytest_maqet.session import folder_name
from pytest_maqet.settings import thread_bound


def test_tasks_run_at_once_and_their_errors_come_back_in_order():
    barrier = threading.Barrier(3, timeout=5)
    error = RuntimeError("second")

    def fail():
        barrier.wait()
        raise error

    assert at_once([barrier.wait, fail, barrier.wait], threads=3) == [None, error, None]


def test_threads_are_bounded_and_gone_afterwards():
    running, most = [], []

    def task():
        running.append(1)
        most.append(len(running))
        time.sleep(0.02)
        running.pop()

    before = threading.active_count()
    assert at_once([task] * 10, threads=3) == [None] * 10
    assert max(most) <= 3
    assert threading.active_count() == before


def test_an_interrupt_goes_through_a_single_task():
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        at_once([interrupt], threads=4)


def test_no_task_is_no_work():
    assert at_once([], threads=4) == []


@pytest.mark.parametrize("workers", [1, 2, 8, 100])
def test_the_thread_bound_is_divided_among_workers(workers):
    assert 1 <= thread_bound(workers) <= 16 // min(workers, 16)
    assert thread_bound(1) >= 4


def test_ledgers_of_all_workers_become_one():
    exports = []
    for worker in ("gw0", "gw1"):
        ledger = Ledger(worker)
        record = ledger.begin("web", "run", "test_x")
        record.lock_acquired = record.began + 0.5
        record.ready = record.began + 2
        ledger.spoiled.append(Spoiled("web", "paused", "test_x", worker))
        exports.append(ledger.export())
    exports[1]["starts"][0]["how"] = "join"
    total = merged(exports)
    assert (total["boots"], total["joins"], total["failures"]) == (1, 1, 0)
    assert total["lock_seconds"] == pytest.approx(1.0)
    assert [one["worker"] for one in total["spoiled"]] == ["gw0", "gw1"]


def test_folder_names_differ_when_test_ids_do_and_are_safe():
    ids = ["a.py::test[x/y]", "a.py::test[x-y]", "a.py::test[x y]", "a.py::test[../..]", "x" * 500, "x" * 501]
    names = [folder_name(nodeid) for nodeid in ids]
    assert len(set(names)) == len(ids)
    assert all("/" not in name and not name.startswith(".") and len(name.encode()) < 200 for name in names)
