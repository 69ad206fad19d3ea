"""A worker that is killed in the middle of a test: the report shows what its VMs left behind."""

from __future__ import annotations

import pytest

YAML = """
vms:
  own: {image: builtin:nano, memory: 16M}
  shared: {image: builtin:nano, memory: 16M, scope: run}
  slow: {image: builtin:nano, memory: 16M, ready: [{console: never, timeout: 50}]}
"""


def test_the_report_shows_consoles_and_ends_of_the_vms_it_used(suite):
    suite.yaml(YAML)
    suite.tests(
        """
        import os, signal

        def test_before(own):
            own.console.send("another test's\\n")
            own.wait.console("echo: another")

        def test_crash(own, shared):
            own.console.send("last words\\n")
            own.wait.console("echo: last words")
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    result = suite.run("-n1", "--max-worker-restart=0")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "worker 'gw0' crashed while running 'test_it.py::test_crash'",
            "*- console of own -*",
            "echo: last words",
            "*- QEMU of own -*",
            "killed by signal 9 (SIGKILL): its owner was gone",
            "*- console of shared -*",
            "maqet nano: guest ready",
            "*- QEMU of shared -*",
            "*- maqet artifacts -*",
            ".maqet/artifacts/test_it.py--test_crash-*",
            "artifacts: *test_crash*",
        ]
    )
    assert "another test's" not in result.stdout.str(), "a VM of an earlier test is shown"
    kept = list((suite.path / ".maqet/artifacts").glob("*test_crash*/own-*-serial-main.log"))
    assert len(kept) == 1, "the full console log is not among the artifacts"
    assert b"last words" in kept[0].read_bytes()
    assert suite.left_over() == []


def test_a_worker_that_ends_while_a_vm_starts(suite):
    suite.yaml(YAML)
    suite.conftest(
        """
        import os, threading

        def pytest_maqet_vm_started(vm):
            vm.wait.console("guest ready", since="start")
            threading.Timer(0.2, os._exit, [3]).start()  # as pytest-timeout's thread method ends a process
        """
    )
    suite.tests("def test_it(slow): pass")
    result = suite.run("-n1", "--max-worker-restart=0", "--maqet-start=boot")
    result.stdout.fnmatch_lines(["*- console of slow -*", "maqet nano: guest ready", "*- QEMU of slow -*"])
    assert suite.left_over() == []


@pytest.mark.parametrize("arguments", [["-n1"], ["-n1", "--dist=worksteal"]])
def test_the_replacement_goes_on(suite, arguments):
    suite.yaml(YAML)
    suite.tests(
        """
        import os, signal

        def test_crash(shared):
            os.kill(os.getpid(), signal.SIGKILL)

        def test_after(shared, own):
            assert shared.status == own.status == "running"
        """
    )
    result = suite.run(*arguments)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*- QEMU of shared -*", "runs on"])
    assert suite.left_over() == []


def test_a_crash_without_a_vm_shows_none(suite):
    suite.yaml(YAML)
    suite.tests("import os\ndef test_crash(): os._exit(3)")
    result = suite.run("-n1", "--max-worker-restart=0")
    result.stdout.fnmatch_lines(["worker 'gw0' crashed while running*"])
    assert "console of" not in result.stdout.str()
    assert "INTERNALERROR" not in result.stdout.str()
