"""Runs that end before they are done: interrupted, hung up, killed, stopped by a failure."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys

import pytest
from ending_runs import alive, start, wait_for

#: `deaf` has nothing on its disk that would obey the power button: `teardown: stop` asks in vain for an hour.
YAML = """
vms:
  own: {image: builtin:nano, memory: 16M}
  shared: {image: builtin:nano, memory: 16M, scope: run}
  deaf: {image: blank.img, memory: 16M, teardown: stop, timeouts: {stop: 3600}, start: boot}
  deaf-run: {extends: deaf, scope: run}
"""
#: Notes the QEMUs' pids, then stays; its fixture tells whether its worker came to the end of its teardown.
STAYS = """
import os, time, pytest
from pathlib import Path

@pytest.fixture(scope="session")
def last():
    yield
    Path(f"down-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}").touch()

@pytest.mark.parametrize("number", range(2))
def test_it(last, own, shared, deaf, deaf_run, number):
    note = Path(f"up-{number}.new")
    note.write_text(" ".join(str(vm.pid) for vm in (own, shared, deaf, deaf_run)))
    note.rename(f"up-{number}")
    time.sleep(3600)
"""


@pytest.fixture
def staying(suite):
    suite.yaml(YAML)
    (suite.path / "blank.img").write_bytes(bytes(1 << 20))
    suite.tests(STAYS)
    return suite


def _qemus(suite, count: int) -> list[int]:
    """The pids of the QEMUs of that many tests that are at work."""
    wait_for(lambda: len(list(suite.path.glob("up-?"))) >= count, 90, "the start of the VMs")
    return [int(pid) for path in suite.path.glob("up-?") for pid in path.read_text().split()]


def _said(suite) -> str:
    return (suite.path / "out.txt").read_text(errors="replace")


def _ended(suite, run: subprocess.Popen) -> None:
    """The run ends in the seconds that xdist and execnet take, and more where the machine is busy."""
    try:
        run.wait(60)
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()


def test_an_interrupted_controllers_workers_finish_their_teardown(staying):
    """Only the controller gets SIGINT; execnet gives its workers some seconds, and then kills them."""
    run = start(staying, "-n2")
    qemus = _qemus(staying, 2)
    run.send_signal(signal.SIGINT)
    _ended(staying, run)
    assert {path.name for path in staying.path.glob("down-*")} == {"down-gw0", "down-gw1"}, (
        f"a worker was killed in its teardown:\n{_said(staying)}"
    )
    assert "INTERNALERROR" not in _said(staying)
    assert not [pid for pid in qemus if alive(pid)]
    assert staying.left_over() == []


def test_the_first_failure_that_ends_the_run(suite):
    """xdist lets the other workers finish the test they are at; its VM is that test's until then."""
    suite.yaml(YAML)
    (suite.path / "blank.img").write_bytes(bytes(1 << 20))
    suite.tests(
        """
        import os, time, pytest
        from pathlib import Path

        @pytest.mark.parametrize("number", range(6))
        def test_it(shared, own, number):
            worker = os.environ["PYTEST_XDIST_WORKER"]
            Path(f"began-{worker}").touch()
            while len(list(Path().glob("began-*"))) < 2:
                time.sleep(0.05)
            assert worker != "gw0", "the first failure"
            time.sleep(2)
            assert own.status == shared.status == "running"
        """
    )
    result = suite.run("-n2", "--maxfail=1")
    result.stdout.fnmatch_lines(["*stopping after 1 failures*"])
    outcomes = result.parseoutcomes()
    assert outcomes["failed"] == 1, "the other worker's test has lost its VMs"
    # What a worker has been given already it still runs.
    assert outcomes["passed"] < 5, "the run went on"
    assert "INTERNALERROR" not in result.stdout.str()
    assert suite.left_over() == []


def test_a_terminated_controller_takes_all_with_it(staying):
    run = start(staying, "-n2")
    qemus = _qemus(staying, 2)
    run.terminate()
    run.wait(20)
    wait_for(lambda: not any(map(alive, qemus)), 60, "the end of the VMs after their controller's")


@pytest.mark.parametrize("arguments", [["-n0"], ["-n2"]], ids=["alone", "two workers"])
def test_a_terminal_that_is_closed(staying, arguments):
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(staying.path)
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
        os.execv(sys.executable, command)
    qemus = _qemus(staying, 1)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGHUP
    wait_for(lambda: not any(map(alive, qemus)), 60, "the end of the VMs after their terminal's")


def test_a_second_ctrl_c_during_the_teardown(suite):
    """The first one is in a fixture of the user's that takes its time, when the second comes."""
    suite.yaml(YAML)
    (suite.path / "blank.img").write_bytes(bytes(1 << 20))
    suite.tests(
        """
        import time, pytest
        from pathlib import Path

        @pytest.fixture
        def slow(own, deaf):
            yield
            Path("slow").touch()
            time.sleep(3600)

        def test_it(slow, own, deaf):
            note = Path("up-0.new")
            note.write_text(f"{own.pid} {deaf.pid}")
            note.rename("up-0")
            time.sleep(3600)
        """
    )
    run = start(suite, "-n0")
    qemus = _qemus(suite, 1)
    run.send_signal(signal.SIGINT)
    wait_for((suite.path / "slow").exists, 30, "the teardown after the first Ctrl-C")
    run.send_signal(signal.SIGINT)
    _ended(suite, run)
    assert not [pid for pid in qemus if alive(pid)]
    assert suite.left_over() == []


def test_ctrl_c_while_a_guest_is_asked_to_shut_down(suite):
    suite.yaml(YAML)
    (suite.path / "blank.img").write_bytes(bytes(1 << 20))
    suite.conftest(
        """
        from pathlib import Path

        def pytest_maqet_vm_stopping(vm):
            Path("up-0").write_text(str(vm.pid))
        """
    )
    suite.tests("def test_it(deaf): pass\ndef test_next(deaf): pass")
    run = start(suite, "-n0")
    qemus = _qemus(suite, 1)
    assert alive(*qemus), "it was to be stopped, not killed"
    run.send_signal(signal.SIGINT)
    _ended(suite, run)
    assert run.returncode == pytest.ExitCode.INTERRUPTED
    assert "KeyboardInterrupt" in _said(suite)
    assert not alive(*qemus)
    assert suite.left_over() == []
