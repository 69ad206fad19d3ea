"""The chaos runner's checks complain when something is wrong: each is shown what it looks for."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import chaos_checks
import pytest
from chaos_home import Home
from chaos_plans import Round
from chaos_processes import Family, Process, alive, end_all, gone_after, marked, send
from chaos_rounds import Limits, Runner

ONE = Round(0, 0, 0, ("machines.py",), cold=False, dead_run=False, faults=())
PATIENT = Limits(gone=1.0, hanging=60.0)
LOCKING = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.{}(file, fcntl.LOCK_EX)
print(flush=True)
time.sleep(99)
"""
LEAKING = f"""
import os, subprocess, sys

def test_it():
    leak = subprocess.Popen(
        [sys.executable, "-c", {LOCKING.format("flock")!r}, os.environ["MAQET_RUN_BASE"] + "/leak"],
        stdout=subprocess.PIPE, start_new_session=True,
    )
    leak.stdout.read(1)
    leak.returncode = 0
    leak.stdout.close()
"""


@contextmanager
def a_process(home: Home, mark: str, code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process with a mark, which has said a line when the block begins."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=home.environment(mark),
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def test_a_suite_that_leaks_is_complained_of(home: Home) -> None:
    (home.path / "suite" / "machines.py").write_text(LEAKING)
    said = "\n".join(Runner(home, PATIENT).clean_run(ONE).complaints)
    assert "process left after" in said
    assert f"file left: {home.runs / 'leak'}" in said
    assert "a run without faults ended" not in said, "the suite itself passes"


def test_a_suite_that_fails_is_complained_of(home: Home) -> None:
    (home.path / "suite" / "machines.py").write_text("def test_it(): assert not 'a reason'")
    said = "\n".join(Runner(home, PATIENT).clean_run(ONE).complaints)
    assert "a run without faults ended with 1" in said
    assert "failed before any fault: machines.py::test_it" in said


def test_a_suite_that_hangs_is_complained_of_with_its_stack(home: Home) -> None:
    (home.path / "suite" / "machines.py").write_text("import time\ndef test_it(): time.sleep(600)")
    said = "\n".join(Runner(home, Limits(gone=1.0, hanging=12.0)).clean_run(ONE).complaints)
    assert "hangs" in said
    assert "most recent call first" in said, "nobody sees where it hangs"


def test_processes_are_found_by_their_mark_only(home: Home) -> None:
    code = "import subprocess, time; subprocess.Popen(['sleep', '99']); print(flush=True); time.sleep(99)"
    with a_process(home, "one", code) as first, a_process(home, "two", code) as other:
        family = Family("one", first.pid)
        assert len(family.all) == 2, "a process and its child"
        assert [[first.pid]] == [[one.pid for one in group] for group in family.of("controller", [])]
        _, complaints = chaos_checks.left_processes("one", 0.1)
        assert len(complaints) == 2
        end_all("one")
        assert chaos_checks.left_processes("one", 5.0)[1] == []
        assert len(marked("two")) == 2, "those of another run were hit"
        stopped = next(process for process in marked("two") if process.pid == other.pid)
        assert send(stopped, signal.SIGSTOP)
        assert gone_after([stopped], 0.1) is None, "a stopped process is alive"
        end_all("two")
        assert not alive(stopped)
        assert not send(stopped, signal.SIGKILL), "a dead process was hit"
        stranger = Process(first.pid, 0, ("python",), started=1)
        assert not send(stranger, signal.SIGKILL), "another process with that pid was hit"


@pytest.mark.parametrize(("call", "kind"), [("flock", "flock"), ("lockf", "fcntl")])
def test_a_held_lock_is_complained_of(home: Home, call: str, kind: str) -> None:
    path = home.runs / "run" / "in-use.lease"
    path.parent.mkdir()
    path.touch()
    assert chaos_checks.held_locks(home.runs, patience=0.0) == []
    with a_process(home, "lock", LOCKING.format(call), path):
        assert chaos_checks.held_locks(home.runs, patience=0.1) == [f"{kind} lock held: {path}"]
    assert chaos_checks.held_locks(home.runs, patience=5.0) == []


def test_what_a_keeper_should_have_removed_is_complained_of(home: Home) -> None:
    vm = home.runs / "run" / "nano-1"
    vm.mkdir(parents=True)
    for name in ("keeper.lock", "serial-main.log", "disk-data.qcow2"):
        (vm / name).touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(vm / "qmp0.sock"))
    ended = {"code": None, "signal": 9}

    def complaints(*killed: Path) -> set[str]:
        (vm / "exit").write_text(json.dumps(ended))
        found = chaos_checks.volatile_files(home, set(map(str, killed)))
        return {complaint.rpartition("/")[2] for complaint in found}

    assert complaints() == {"disk-data.qcow2", "qmp0.sock"}, "evidence stays, disks and sockets do not"
    assert complaints(vm) == set(), "its keeper was killed"
    ended["cause"] = "its owner was done with it"
    assert complaints() == set(), "its owner was to remove it"


def test_every_file_but_whole_templates_is_complained_of(home: Home) -> None:
    store = home.templates
    whole, half, unlinked = (store / f"{name}-1234" for name in ("whole", "half", "unlinked"))
    for folder in (whole, half, unlinked, store / "locks", home.runs / "run"):
        folder.mkdir(parents=True)
        (folder / "use").touch()
    (whole / "manifest.json").touch()
    for name in ("whole", "half"):
        (store / name).symlink_to(f"{name}-1234")
    (store / ".new-1234").symlink_to("whole-1234")
    (store / "locks" / "use").rename(store / "locks" / "whole.lock")
    (store / "locks" / "whole.lock.holder").touch()
    for name in ("xdg", "tmp"):
        (home.path / name / "rest").touch()
    expected = ["runs/run", "tmp/rest", "xdg/rest"]
    expected += [f"cache/templates/{name}" for name in ("half", "half-1234", "unlinked-1234", ".new-1234")]
    expected += ["cache/templates/locks/whole.lock.holder"]
    assert set(chaos_checks.left_files(home)) == {f"file left: {home.path / name}" for name in expected}
