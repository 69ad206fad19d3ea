"""`scope: run`: one VM for all workers, alive until the run is over, whoever dies first."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
from ending_runs import alive, start, wait_for

SHARED = """
vms:
  shared: {image: builtin:nano, memory: 16M, scope: run}
  own: {image: builtin:nano, memory: 16M}
"""

#: Each worker writes what it has seen when its session ends.
DUMP = """
import json, os, pytest

@pytest.fixture(scope="session", autouse=True)
def dump(maqet, request):
    yield
    name = os.environ.get("PYTEST_XDIST_WORKER", "main")
    (request.config.rootpath / f"stats-{name}.json").write_text(json.dumps(maqet.stats()))
"""


def _stats(suite) -> list[dict]:
    starts = []
    for path in suite.path.glob("stats-*.json"):
        starts += json.loads(path.read_text())["starts"]
    return sorted(starts, key=lambda record: record["began"])


@pytest.mark.parametrize("workers", ["-n0", "-n4"])
def test_it_is_started_once_and_outlives_the_first_worker_that_finishes(suite, workers):
    suite.yaml(SHARED)
    suite.conftest(DUMP)
    suite.tests(
        """
        import time, pytest

        @pytest.mark.parametrize("number", range(8))
        def test_it(shared, number):
            time.sleep(0.2 + (number % 4) * 0.5)
            assert shared.status == "running"
            print("PID", shared.pid)
        """
    )
    result = suite.run(workers, "-rP")
    result.assert_outcomes(passed=8)
    assert len({line for line in result.outlines if line.startswith("PID")}) == 1, "one QEMU for all"
    starts = _stats(suite)
    assert [record["how"] for record in starts].count("clone") == 1
    assert len(starts) == (1 if workers == "-n0" else 4)
    assert suite.left_over() == []


def test_the_lock_is_held_for_the_start_only(suite):
    suite.yaml(SHARED)
    suite.conftest(DUMP)
    suite.tests(
        """
        import time, pytest

        @pytest.mark.parametrize("number", range(2))
        def test_it(shared, number): time.sleep(2)
        """
    )
    began = time.monotonic()
    suite.run("-n2").assert_outcomes(passed=2)
    starts = _stats(suite)
    held = [record["lock_released"] - record["lock_acquired"] for record in starts]
    assert all(record["ready"] is not None for record in starts)
    assert sum(held) < time.monotonic() - began - 2, f"locks held for {held} s"
    first, second = sorted(starts, key=lambda record: record["lock_acquired"])
    assert second["lock_acquired"] >= first["lock_released"] - 0.01, "one start at a time"


def test_vms_of_different_names_start_at_the_same_time_on_different_workers(suite):
    suite.yaml(
        "defaults: {image: builtin:nano, memory: 16M, scope: run}\nvms:\n"
        + "".join(f"  vm{number}: {{}}\n" for number in range(2))
    )
    suite.conftest(DUMP)
    suite.tests("def test_a(vm0): pass\ndef test_b(vm1): pass\n")
    suite.run("-n2", "--dist=each").assert_outcomes(passed=4)
    suite.tests("import time\ndef test_a(vm0): time.sleep(1)\ndef test_b(vm1): time.sleep(1)\n")
    for path in suite.path.glob("stats-*.json"):
        path.unlink()
    suite.run("-n2").assert_outcomes(passed=2)
    one, other = _stats(suite)
    assert one["worker"] != other["worker"]
    assert max(one["began"], other["began"]) < min(one["ready"], other["ready"]), "they did not overlap"


def test_a_worker_that_joined_knows_the_disks(suite):
    suite.yaml(
        "vms:\n  shared: {image: builtin:nano, memory: 16M, scope: run, storage: [{name: data, size: 1M}]}\n"
    )
    suite.tests(
        """
        import json, os
        from pathlib import Path

        def test_it(shared):
            worker = os.environ["PYTEST_XDIST_WORKER"]
            Path(f"disks-{worker}.json").write_text(json.dumps(shared.storage_info(), default=str))
        """
    )
    suite.run("-n2", "--dist=each").assert_outcomes(passed=2)
    one, other = (json.loads(path.read_text()) for path in suite.path.glob("disks-*.json"))
    assert one == other, "two workers are told different things of one VM"
    assert {"root", "data"} == {row["name"] for row in one}
    assert all(row["exists"] for row in one), one


def test_power_calls_need_exclusive_use(suite):
    suite.yaml(SHARED)
    suite.tests(
        """
        import pytest
        from pytest_maqet import NotSupported

        def test_refused(shared):
            with pytest.raises(NotSupported, match="exclusive"):
                shared.reset()

        @pytest.mark.maqet("shared", exclusive=True)
        def test_alone(vm):
            vm.reset()
            vm.wait.console("guest ready")
        """
    )
    suite.run().assert_outcomes(passed=2)


def test_a_dead_one_is_replaced_for_every_worker(suite):
    suite.yaml(SHARED)
    suite.tests(
        """
        import time, pytest

        def test_kill(shared):
            with shared.exclusive():
                shared.kill()

        @pytest.mark.parametrize("number", range(4))
        def test_after(shared, number):
            assert shared.status == "running"
            time.sleep(0.3)
        """
    )
    suite.run().assert_outcomes(passed=5)
    result = suite.run("-n2")
    # The other worker may be in the middle of a test when the VM is killed: that one test may fail with it.
    outcomes = result.parseoutcomes()
    assert outcomes.get("passed", 0) >= 4, f"{outcomes}"
    assert suite.left_over() == []


SLEEPER = """
import os, time, pytest
from pathlib import Path

@pytest.mark.parametrize("number", range(2))
def test_it(shared, own, number, request):
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    path = Path(str(request.config.rootpath)) / f"up-{worker}"
    path.with_suffix(".tmp").write_text(f"{os.getpid()} {own.pid} {shared.pid}")
    path.with_suffix(".tmp").rename(path)
    if not (request.config.rootpath / "go").exists():
        time.sleep(60)
"""


def _ups(suite, count: int) -> list[list[int]]:
    wait_for(lambda: len(list(suite.path.glob("up-*[0-9n]"))) >= count, 60, "the start of the workers' VMs")
    return [
        [int(part) for part in path.read_text().split()] for path in sorted(suite.path.glob("up-*[0-9n]"))
    ]


def test_a_killed_workers_vm_goes_and_the_shared_one_stays(suite):
    suite.yaml(SHARED)
    suite.tests(SLEEPER)
    run = start(suite, "-n2")
    try:
        (worker, own, shared), (_other, other_own, other_shared) = _ups(suite, 2)
        assert shared == other_shared
        (suite.path / "go").touch()
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: not alive(own), 1.5, "the end of the killed worker's own VM")
        assert alive(shared), "the shared VM belongs to the run"
        assert alive(other_own)
        for path in suite.path.glob("up-gw2"):
            assert int(path.read_text().split()[2]) == shared, "the replacement joins it"
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    wait_for(lambda: not alive(shared), 1.5, "the end of the shared VM after the run was killed")


@pytest.mark.parametrize("victim", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_without_workers_that_is_killed_leaves_no_qemu(suite, victim):
    suite.yaml(SHARED)
    suite.tests(SLEEPER)
    run = start(suite, "-n0")
    try:
        ((_main, own, shared),) = _ups(suite, 1)
        os.kill(run.pid, victim)
        wait_for(lambda: not (alive(own) or alive(shared)), 2.5, f"the end of the VMs after signal {victim}")
    finally:
        if run.poll() is None and victim != signal.SIGINT:
            run.kill()
        run.wait(timeout=20)
    suite.tests("def test_next(own): pass")
    suite.run().assert_outcomes(passed=1)
    assert suite.left_over() == [], "the next run sweeps what a killed one leaves"


def test_a_killed_controller_takes_all_with_it(suite):
    suite.yaml(SHARED)
    suite.tests(SLEEPER)
    run = start(suite, "-n2")
    ups = _ups(suite, 2)
    run.kill()
    run.wait()
    qemus = [pid for up in ups for pid in up[1:]]
    # xdist's workers notice the end of their controller after some seconds; no sooner can their VMs go.
    wait_for(lambda: not any(map(alive, qemus)), 15, "the end of the VMs after their controller's")


@pytest.mark.parametrize("more", [[], ["--maqet-start=boot"]], ids=["templates", "boots"])
def test_ctrl_c_while_several_vms_start_leaves_nothing(suite, more):
    suite.yaml(
        "defaults: {image: builtin:nano, memory: 16M, ready: [{console: never, timeout: 50}]}\n"
        "vms: {one: {}, two: {memory: 24M}}\n"
    )
    suite.tests("def test_it(one, two): pass")
    run = start(suite, "-n0", *more)
    wait_for(lambda: len(list(suite.run_base.glob("*/*/pid"))) == 2, 60, "the start of both")
    os.kill(run.pid, signal.SIGINT)
    run.wait(timeout=20)
    assert suite.left_over() == [], (suite.path / "out.txt").read_text()
