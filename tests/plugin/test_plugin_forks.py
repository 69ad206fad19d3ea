"""A test that forks: whatever its child does, as a second pytest even, harms no VM of the parent."""

from __future__ import annotations

import pytest

YAML = """
vms:
  own: {image: builtin:nano, memory: 16M}
  kept: {image: builtin:nano, memory: 16M, scope: module}
  shared: {image: builtin:nano, memory: 16M, scope: run}
"""


def test_a_child_that_runs_on_as_pytest_leaves_its_parents_vms_alone(suite):
    """It tears fixtures down, ends by Python's own clearing up, and shares descriptors with its parent."""
    suite.yaml(YAML)
    suite.tests(
        """
        import os
        from pathlib import Path

        def test_fork(own, kept, shared):
            child = os.fork()
            if child == 0:
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, 1)
                os.dup2(null, 2)
                raise SystemExit  # pytest takes it for a failure, and goes on with the child
            os.waitpid(child, 0)
            for vm in (own, kept, shared):
                assert vm.qmp.execute("query-status", timeout=2)["status"] == "running"
            own.wait.console("ready", since="start", timeout=1)

        def test_after(kept, shared):
            pids = Path("pids")
            if pids.exists():
                assert pids.read_text() == f"{kept.pid} {shared.pid}", "they were replaced"
            pids.write_text(f"{kept.pid} {shared.pid}")
        """
    )
    result = suite.run("-n0", "-W", "ignore::DeprecationWarning")
    result.assert_outcomes(passed=2)
    assert suite.left_over() == []


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), 9)", "raise SystemExit"])
def test_a_vm_that_a_child_starts_ends_with_it(suite, end):
    """The parent lives on, and holds the lease that its own VMs hang on."""
    suite.yaml(YAML)
    suite.tests(
        f"""
        import os, time
        from pathlib import Path

        def test_fork(own, maqet):
            child = os.fork()
            if child == 0:
                vm = maqet.start("own")
                assert vm.qmp.execute("query-status")["status"] == "running"
                Path("qemu").write_text(str(vm.pid))
                {end}
            _, status = os.waitpid(child, 0)
            began = time.monotonic()
            while is_qemu(Path("qemu").read_text()):
                assert time.monotonic() - began < 3, "the VM outlives the process that started it"
                time.sleep(0.01)
            assert own.qmp.execute("query-status")["status"] == "running"

        def is_qemu(pid):
            try:
                return b"qemu-system" in Path("/proc", pid, "cmdline").read_bytes()
            except OSError:
                return False
        """
    )
    result = suite.run("-n0", "-W", "ignore::DeprecationWarning")
    assert "1 passed" in result.stdout.str(), "the parent's VM or its child's did not end as it should"
    assert suite.left_over() == []
