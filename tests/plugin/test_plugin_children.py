"""What a test leaves behind of its own, forked children and daemons, keeps no VM alive and hangs no pipe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from ending_runs import alive, start, wait_for

from pytest_maqet.runs.sweep import sweep

#: Ways to have a child that outlives the test: each notes its pid in `child`.
LEAVES = """
import multiprocessing, os, signal, time
from pathlib import Path

def stays():
    Path("child.new").write_text(str(os.getpid()))
    Path("child.new").rename("child")
    time.sleep(3600)

def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            stays()
        os._exit(0)
    os.wait()

def process():
    multiprocessing.get_context("fork").Process(target=stays).start()

def test_it(own, shared):
    HOW()
    while not Path("child").exists():
        time.sleep(0.01)
    Path("qemus").write_text(f"{own.pid} {shared.pid}")
    END
"""
YAML = """
vms:
  own: {image: builtin:nano, memory: 16M}
  shared: {image: builtin:nano, memory: 16M, scope: run}
"""


@pytest.mark.parametrize(
    ("how", "end"),
    [
        ("process", "os.kill(os.getpid(), signal.SIGKILL)"),
        ("daemon", "os.kill(os.getpid(), signal.SIGKILL)"),
        ("daemon", "pass"),
    ],
    ids=["multiprocessing, killed", "daemon, killed", "daemon, normal end"],
)
def test_vms_end_with_the_run_although_a_child_lives(suite, how, end):
    suite.yaml(YAML)
    suite.tests(LEAVES.replace("HOW", how).replace("END", end))
    # From Python 3.12 on os.fork warns of the threads of a process, ours among them.
    run = start(suite, "-n0", "-W", "ignore::DeprecationWarning")
    run.wait(60)
    child = int((suite.path / "child").read_text())
    try:
        qemus = [int(pid) for pid in (suite.path / "qemus").read_text().split()]
        wait_for(lambda: not any(map(alive, qemus)), 10, "the end of the VMs")
        assert alive(child), "it was to outlive the run"
    finally:
        os.kill(child, signal.SIGKILL)
    # A keeper removes what is volatile before it goes, and until then a sweep leaves its run alone.
    wait_for(lambda: _swept(suite), 10, "the end of all that belongs to the run")


def _swept(suite) -> bool:
    sweep(suite.run_base)
    return suite.left_over() == []


@pytest.mark.parametrize("reader", ["cat", "head -n 1"])
def test_a_pipe_is_not_held_by_our_processes(suite, reader):
    """`pytest -s | cat` ends with pytest, also when that is killed, and `| head` hangs nobody."""
    suite.yaml(YAML)
    suite.tests(
        """
        import os, signal
        from pathlib import Path

        def parent(pid):
            return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

        def test_it(own, shared):
            pipes = {os.readlink(f"/proc/self/fd/{fd}") for fd in (1, 2)}
            pids = {own.pid, shared.pid, parent(own.pid), parent(shared.pid)}
            open_there = {os.readlink(fd) for pid in pids for fd in Path(f"/proc/{pid}/fd").iterdir()}
            assert not {name for name in pipes if name.startswith("pipe:")} & open_there
            print("a line\\n" * 100000)

        def test_killed(own, shared):
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    command = f"{sys.executable} -m pytest -s -n0 -p no:cacheprovider 2>&1 | {reader}"
    done = subprocess.run(
        ["sh", "-c", command], cwd=suite.path, capture_output=True, timeout=100, check=False
    )
    assert done.stdout.startswith(b"====")
    assert b"FAILED" not in done.stdout
    wait_for(lambda: not _qemus_of(suite), 10, "the end of the VMs")


def _qemus_of(suite) -> list[str]:
    return [line for line in suite.left_over() if "qemu-system" in line]
