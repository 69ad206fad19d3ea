"""QEMU crashes while it is torn down, or when no call looks: the test's teardown or the summary tells it."""

from __future__ import annotations

import shutil

import pytest

#: Ends as if QEMU had crashed when it was asked to quit; not where it is only asked about itself.
CRASHING = """\
#!/bin/sh
case "$*" in *logfile=*) ;; *) exec {qemu} "$@";; esac
{qemu} "$@"
echo 'qemu: hw/core: assertion failed' >&2
kill -SEGV $$
"""
#: In the tests: the signal to a QEMU, and it is dead when this returns.
CRASH = """
import os, pytest, select, signal
from pytest_maqet import QemuDied

def crash(vm):
    qemu = os.pidfd_open(vm.pid)
    os.kill(vm.pid, signal.SIGSEGV)
    assert select.select([qemu], [], [], 30)[0], "it lives on"
    os.close(qemu)
"""
TOLD = "*nano: QEMU died: killed by signal 11 (SIGSEGV): QEMU crashed*"


@pytest.fixture
def crashing(suite):
    """A suite with a VM whose QEMU crashes when it is stopped."""

    def write(scope: str, teardown: str = "stop", binary: str | None = None) -> None:
        wrapper = suite.path / "crashing"
        wrapper.write_text(CRASHING.format(qemu=shutil.which("qemu-system-x86_64")))
        wrapper.chmod(0o755)
        suite.yaml(
            "vms: {nano: {image: builtin:nano, memory: 16M, start: boot, timeouts: {stop: 0.2}, "
            f"scope: {scope}, teardown: {teardown}, binary: {binary or wrapper}}}}}"
        )

    return write


def test_a_teardown_that_crashes_is_an_error_of_the_test(suite, crashing):
    crashing("function")
    suite.tests("def test_it(nano): pass\ndef test_next(): pass")
    result = suite.run("-o", "console_output_style=classic")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_it*",
            TOLD,
            "*QEMU's stderr of nano*",
            "*assertion failed*",
            "*artifacts*",
        ]
    )
    kept = {path.name for path in (suite.path / ".maqet").rglob("*")}
    assert {"nano-stderr.log", "nano-console-main.log"} <= kept, f"kept of the crash: {kept}"
    assert suite.left_over() == []


def test_a_crash_before_the_teardown_is_an_error_of_the_test(suite, crashing):
    crashing("function", "kill", "qemu-system-x86_64")
    suite.tests(CRASH + "def test_it(nano): crash(nano)\ndef test_ends(nano): nano.kill()")
    result = suite.run()
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_it*", TOLD, "hint:*found when *torn down"])


def test_a_crash_that_was_told_is_told_once(suite, crashing):
    crashing("function", "kill", "qemu-system-x86_64")
    suite.tests(
        CRASH
        + """
def test_expected(nano):
    with nano.expecting(QemuDied):
        crash(nano)

def test_awaited(nano):
    crash(nano)
    with pytest.raises(QemuDied):
        nano.wait.console("never")

def test_seen(nano):
    crash(nano)
    assert nano.wait.exit().signal == signal.SIGSEGV
"""
    )
    suite.run().assert_outcomes(passed=3)


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
@pytest.mark.parametrize("scope", ["module", "session", "run"])
def test_the_crash_of_a_shared_vm_is_in_the_summary(suite, crashing, scope, workers):
    crashing(scope)
    suite.tests("def test_it(nano): pass\ndef test_last(nano): pass")
    result = suite.run(workers)
    result.assert_outcomes(passed=2)
    text = result.stdout.str()
    assert text.count("QEMU died") == 1, f"told once, in the summary:\n{text}"
    result.stdout.fnmatch_lines(["=* maqet =*", f"{TOLD}; found *"])
    if scope == "run":
        result.stdout.fnmatch_lines(["*its stderr:*assertion failed*"])
    else:
        result.stdout.fnmatch_lines(["artifacts: *"])
    assert suite.left_over() == []


def test_a_vm_that_a_test_left_crashed_is_told_once(suite, crashing):
    crashing("session", "kill", "qemu-system-x86_64")
    suite.tests(CRASH + "def test_it(nano): crash(nano)\ndef test_next(): pass")
    result = suite.run()
    result.assert_outcomes(passed=2)
    text = result.stdout.str()
    assert text.count("QEMU died") == 1, text
    result.stdout.fnmatch_lines(["nano was unusable after test_it.py::test_it: QEMU died*"])


def test_one_that_was_started_by_hand_fails_its_block(suite, crashing):
    crashing("function")
    suite.tests(
        """
        import pytest
        from pytest_maqet import QemuDied

        def test_block(maqet):
            with pytest.raises(QemuDied, match="SIGSEGV"), maqet.start("nano"):
                pass

        def test_stop(maqet):
            vm = maqet.start("nano")
            with pytest.raises(QemuDied, match="SIGSEGV"):
                maqet.stop(vm)
        """
    )
    suite.run().assert_outcomes(passed=2)
