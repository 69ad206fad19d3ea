"""VMs that a test leaves hung: the run goes on, names the culprit, ends in time and leaves nothing behind."""

from __future__ import annotations

YAML = """
defaults: {timeouts: {qmp: 1, stop: 600, command: 1}}
vms:
  own: {image: builtin:nano, memory: 16M, vga: std}
  polite: {image: builtin:nano, memory: 16M, teardown: stop}
  shared: {image: builtin:nano, memory: 16M, scope: run}
"""


def test_stopped_vms_under_xdist_are_replaced_and_ended(suite):
    suite.yaml(YAML)
    suite.tests(
        """
        import os, signal, time
        import pytest
        from pytest_maqet import MaqetError

        def hang(vm):
            os.kill(vm.pid, signal.SIGSTOP)
            while open(f"/proc/{vm.pid}/stat").read().rpartition(")")[2].split()[0] != "T":
                time.sleep(0.002)

        @pytest.mark.parametrize("which", ["own", "polite", "shared"])
        def test_hang(which, vms):
            vm = vms[which]
            if which == "shared":
                with vm.exclusive():
                    hang(vm)
            else:
                hang(vm)

        def test_after(shared):
            shared.console.send("still there\\n")
            shared.wait.console("echo: still there")

        def test_templates_of_a_stopped_one(own):
            hang(own)
            with pytest.raises(MaqetError, match="is stopped"):
                own.freeze()
            own.restore("ready")
            own.console.send("hello\\n")
            own.wait.console("echo: hello")

        def test_a_hung_test_fails_with_the_cause(own):
            hang(own)
            own.wait.console("never", timeout=0.1)
        """
    )
    result = suite.run("-n2", "--maqet-timeout-scale=1", "--durations=12", timeout=200)
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines(["*QEMU of own (pid *) is stopped: its process is in state T*"])
    assert suite.left_over() == [], "a stopped QEMU or its files were left behind"


def test_a_worker_killed_beside_a_stopped_qemu(suite):
    suite.yaml(YAML)
    suite.tests(
        """
        import os, signal

        def test_it(own):
            os.kill(own.pid, signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    result = suite.run("-n1", "--max-worker-restart=0", timeout=200)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*- console of own -*", "*guest ready*", "*- QEMU of own -*", "killed by signal 9*"]
    )
    assert suite.left_over() == [], "a stopped QEMU outlived its killed owner"
