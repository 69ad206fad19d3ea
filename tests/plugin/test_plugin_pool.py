"""The pool: the next test's clone is made while this one runs, and costs nobody anything."""

from __future__ import annotations

import os

import pytest

needs_two_cpus = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="with one processor there is no pool"
)
SLOW_TESTS = """
import threading, time, pytest
@pytest.mark.parametrize("n", range(4))
def test_it(nano, n):
    time.sleep(1.5)  # long enough for a spare, on a busy machine too
    nano.console.send("hello\\n")
    nano.wait.console("echo: hello", timeout=5)
"""


@needs_two_cpus
def test_the_next_test_takes_a_spare(suite):
    suite.tests(SLOW_TESTS)
    result = suite.run()
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["4 VM starts: 4 cloned (3 from the pool)*"])
    assert suite.left_over() == []


def test_no_thread_of_ours_is_left_between_tests(suite):
    suite.tests(SLOW_TESTS.replace("range(4)", "range(2)"))
    suite.conftest(
        """
        import pytest, threading
        @pytest.hookimpl(trylast=True)
        def pytest_runtest_logfinish(nodeid):
            ours = [thread.name for thread in threading.enumerate() if "maqet" in thread.name]
            assert not ours, ours
        """
    )
    suite.run("-W", "error").assert_outcomes(passed=2)


@needs_two_cpus
def test_a_spares_clock_does_not_stand_still(suite):
    suite.yaml("vms: {web: {image: builtin:linux, memory: 256M}}")
    suite.tests(
        """
        import time
        def test_first(web): time.sleep(6)
        def test_second(web, maqet):
            assert maqet.stats()["pool_hits"] == 1
            before = time.time()
            clock = float(web.run("cut -d' ' -f1 /proc/uptime >/dev/null; date +%s").stdout)
            assert before - 2 <= clock <= time.time() + 1, "the clock stood still while the spare waited"
        """
    )
    suite.run(timeout=300).assert_outcomes(passed=2)


@needs_two_cpus
def test_spares_draw_different_random_numbers(suite):
    suite.yaml("vms: {web: {image: builtin:linux, memory: 256M}}")
    suite.tests(
        """
        import time, pytest
        seen = set()
        @pytest.mark.parametrize("n", range(3))
        def test_it(web, n):
            time.sleep(2)
            number = web.run("cat /proc/sys/kernel/random/uuid").stdout
            assert number not in seen
            seen.add(number)
        """
    )
    suite.run(timeout=300).assert_outcomes(passed=3)


def test_a_spare_that_nobody_takes_is_gone_at_the_end(suite):
    suite.tests(
        """
        import time, pytest
        def test_first(nano):
            time.sleep(1)
            pytest.exit("enough", returncode=3)
        def test_second(nano): pass
        """
    )
    assert suite.run().ret == 3
    assert suite.left_over() == []


def test_a_spare_that_died_is_replaced_without_a_word(suite):
    suite.tests(
        """
        import os, signal, time
        from pathlib import Path
        def test_first(nano, maqet):
            time.sleep(1.5)
            for pid in maqet.run_dir.glob("nano-*/pid"):
                number = int(pid.read_text())
                if number != nano.pid:
                    os.kill(number, signal.SIGKILL)
        def test_second(nano):
            nano.console.send("hello\\n")
            nano.wait.console("echo: hello", timeout=5)
        """
    )
    suite.run().assert_outcomes(passed=2)


@needs_two_cpus
def test_a_spare_of_files_that_have_changed_since_is_not_taken(suite):
    suite.file("message", "old")
    suite.yaml(
        "vms: {web: {image: builtin:linux, memory: 256M, prepare: [{put: [message, /message]}]}}",
    )
    suite.tests(
        """
        import time
        def test_first(web):
            time.sleep(3)  # long enough for the next one's spare
        def test_second(newly_built, web, maqet):
            assert web.run("cat /message").stdout == "new", "the spare was made of what was there before"
        """
    )
    suite.conftest(
        """
        import pytest
        from pathlib import Path
        @pytest.fixture
        def newly_built():
            Path(__file__).with_name("message").write_text("new")
        """
    )
    suite.run(timeout=300).assert_outcomes(passed=2)
    assert suite.left_over() == []


def test_the_hooks_hear_of_a_spare_when_a_test_takes_it(suite):
    suite.tests(SLOW_TESTS.replace("range(4)", "range(2)"))
    suite.conftest(
        """
        log = open("log", "a", buffering=1)
        def pytest_maqet_vm_started(vm): log.write(f"started {vm.started_by}\\n")
        def pytest_maqet_vm_ready(vm): log.write("ready\\n")
        def pytest_maqet_vm_stopping(vm): log.write("stopping\\n")
        """
    )
    suite.run().assert_outcomes(passed=2)
    assert (suite.path / "log").read_text().splitlines() == ["started clone", "ready", "stopping"] * 2


def test_under_xdist_each_worker_has_its_own(suite):
    suite.tests(SLOW_TESTS.replace("range(4)", "range(8)"))
    suite.run("-n", "2").assert_outcomes(passed=8)
    assert suite.left_over() == []
