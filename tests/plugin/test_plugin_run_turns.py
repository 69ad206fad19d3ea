"""A `run`-scoped VM in several workers' hands: one alone, one that breaks it, one that is killed with it."""

from __future__ import annotations

import pytest

SHARED = "vms: {shared: {image: builtin:nano, memory: 16M, scope: run}}\n"

#: With --dist=each both workers run every test, each its own part; they wait for each other by files.
PARTS = """
import os, signal, time, pytest
from pathlib import Path

FIRST = os.environ["PYTEST_XDIST_WORKER"] == "gw0"

def tell(name): Path(name).touch()

def told(name): return Path(name).exists()

def wait(name):
    end = time.monotonic() + 60
    while not told(name):
        assert time.monotonic() < end, f"nobody told {name}"
        time.sleep(0.01)
"""

ALONE = {
    "block": """
def test_turn(shared):
    if not FIRST:
        assert told("done"), "the VM was another worker's alone"
        return
    with shared.exclusive():
        tell("alone")
        wait("asking")
        time.sleep(0.5)
        tell("done")
""",
    "marker": """
@pytest.mark.maqet("shared", exclusive=FIRST)
def test_turn(vm):
    if not FIRST:
        assert told("done"), "the VM was another worker's alone"
        return
    tell("alone")
    wait("asking")
    time.sleep(0.5)
    tell("done")
""",
}

BEFORE = {
    "by name": "def test_before(shared): pass",
    "by marker": "@pytest.mark.maqet('shared')\ndef test_before(vm): pass",
    "by mapping": "def test_before(vms): vms['shared']",
    "never": "def test_before(): pass",
}


@pytest.mark.parametrize(
    ("how", "before"),
    [("block", "by name"), ("block", "by marker"), ("marker", "never"), ("marker", "by mapping")],
)
def test_the_other_workers_tests_wait_while_one_has_it_alone(suite, how, before):
    suite.yaml(SHARED)
    suite.tests(
        f"""{PARTS}
{BEFORE[before]}

def test_between():  # a test that does not use the VM keeps nobody waiting
    if FIRST:
        wait("between")
    else:
        tell("between")
        wait("alone")
        tell("asking")

{ALONE[how]}
"""
    )
    suite.run("-n2", "--dist=each").assert_outcomes(passed=6)
    assert suite.left_over() == []


DAMAGE = {
    "killed alone": "with shared.exclusive(): shared.kill()",
    "left paused": "shared.qmp.execute('stop')",
    "quit": "shared.qmp.execute('quit'); shared.wait.exit()",
}


@pytest.mark.parametrize(
    ("damage", "before"),
    [("killed alone", "by name"), ("killed alone", "never"), ("left paused", "by marker"), ("quit", "never")],
)
def test_the_culprit_is_named_when_another_worker_replaces_the_vm(suite, damage, before):
    suite.yaml(SHARED)
    suite.tests(
        f"""{PARTS}
{BEFORE[before]}

if FIRST:
    def test_culprit(shared):
        wait("idle")  # else who uses it at that moment could have done it, too
        {DAMAGE[damage]}
else:
    def test_culprit(): tell("idle")

def test_between():
    if FIRST:
        tell("over")
        wait("replaced")
    else:
        wait("over")

def test_after(shared):
    assert shared.status == "running"
    shared.console.send("hello\\n")
    shared.wait.console("echo: hello")
    tell(f"pid-{{shared.pid}}")
    tell("replaced")
"""
    )
    result = suite.run("-n2", "--dist=each")
    result.assert_outcomes(passed=8)
    lines = [line for line in result.outlines if "was unusable after" in line]
    assert len(lines) == 1, f"one culprit, told once: {lines}"
    assert "after test_it.py::test_culprit on gw0: " in lines[0]
    assert len(list(suite.path.glob("pid-*"))) == 1, "both go on with one VM"
    result.stdout.fnmatch_lines(["*in place of an unusable one*"])
    assert suite.left_over() == []


def test_one_that_is_broken_while_another_worker_waits_for_it_is_replaced_for_that_one(suite):
    suite.yaml(SHARED)
    suite.tests(
        f"""{PARTS}
if FIRST:
    @pytest.mark.maqet("shared", exclusive=True)
    def test_it(vm):
        tell("alone")
        wait("asking")
        time.sleep(0.5)
        vm.kill()
else:
    @pytest.fixture(scope="session")
    def asking():
        wait("alone")
        tell("asking")

    def test_it(asking, shared):
        assert shared.status == "running", "handed over dead"
"""
    )
    result = suite.run("-n2", "--dist=each")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["shared was unusable after test_it.py::test_it on gw0: *"])


def test_a_test_whose_worker_was_killed_is_named_too(suite):
    suite.yaml(SHARED)
    suite.tests(
        f"""{PARTS}
if FIRST:
    def test_culprit(shared):
        shared.qmp.execute("stop")
        tell("over")
        os.kill(os.getpid(), signal.SIGKILL)
else:
    def test_culprit(): wait("over")

def test_after(shared):
    assert shared.status == "running"
"""
    )
    result = suite.run("-n2", "--dist=each", "--max-worker-restart=0")
    result.stdout.fnmatch_lines(["shared was unusable after test_it.py::test_culprit on gw0: *'paused'*"])
    assert suite.left_over() == []


def test_all_who_used_it_at_the_time_are_named_where_nobody_can_tell_which_it_was(suite):
    suite.yaml(SHARED)
    suite.tests(
        f"""{PARTS}
def test_it(shared):
    tell(f"using-{{FIRST}}")
    wait(f"using-{{not FIRST}}")
    if FIRST:
        shared.qmp.execute("stop")
        tell("stopped")
    wait("stopped")
    tell(f"seen-{{FIRST}}")
    wait(f"seen-{{not FIRST}}")
"""
    )
    result = suite.run("-n2", "--dist=each")
    result.assert_outcomes(passed=2)
    lines = [line for line in result.outlines if "was unusable after" in line]
    assert len(lines) == 1, lines
    for worker in ("gw0", "gw1"):
        assert f"test_it.py::test_it on {worker}" in lines[0], "one of the two is not named"
    assert " or " in lines[0]


def test_who_waits_too_long_for_a_start_is_told_whose_it_is(suite):
    suite.yaml(
        "vms:\n  shared:\n    image: builtin:nano\n    scope: run\n    timeouts: {lock: 1}\n"
        "    ready: [{call: 'conditions:slow', timeout: 60}]\n"
    )
    suite.file(
        "conditions.py",
        f"""{PARTS}
def slow(vm):
    tell("starting")
    wait("told")
    return True
""",
    )
    suite.conftest("import sys\nsys.path.insert(0, '.')\n")
    suite.tests(
        f"""{PARTS}
from pytest_maqet import LockTimeout

if FIRST:
    def test_it(shared): pass
else:
    def test_it(request):
        wait("starting")
        with pytest.raises(LockTimeout, match="gw0, test_it.py::test_it") as caught:
            request.getfixturevalue("shared")
        assert "start of the run-scoped VM 'shared'" in str(caught.value)
        tell("told")
"""
    )
    # A clone would not ask its condition: in the template that an earlier run has made it was true.
    result = suite.run("-n2", "--dist=each", "--maqet-timeout-scale=1", "--maqet-templates=off")
    result.assert_outcomes(passed=2)
