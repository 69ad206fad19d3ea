"""What all commands have in common: help, version, faults in a line, exit statuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def test_version(command: Command) -> None:
    done = command("--version")
    assert done.stdout == f"pytest-maqet {version('pytest-maqet')}\n", "not the version that is installed"
    assert (done.returncode, done.stderr) == (0, "")


def test_the_console_script_is_this_command() -> None:
    [script] = entry_points(group="console_scripts", name="pytest-maqet")
    assert script.value == "pytest_maqet.cli.main:main"


def test_help_names_every_command(command: Command) -> None:
    done = command("--help")
    assert done.returncode == 0
    assert "guest " in done.stdout
    assert "schema " in done.stdout
    assert "build " in command("guest", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: COMMAND\nhint: see `pytest-maqet --help`"),
        (["guest"], "the following arguments are required: COMMAND\nhint: see `pytest-maqet guest --help`"),
        (["frob"], "argument COMMAND: invalid choice: 'frob'"),
        (["schema", "x"], "unrecognized arguments: x"),
        (["guest", "build", "--ker", "x"], "unrecognized arguments: --ker x"),
        (["guest", "build", "--kernel"], "argument --kernel: expected one argument"),
    ],
)
def test_wrong_arguments(command: Command, arguments: list[str], said: str) -> None:
    done = command(*arguments)
    assert done.returncode == 2, "wrong arguments end with status 2, as everywhere"
    assert done.stderr.startswith(f"pytest-maqet: {said}"), done.stderr
    assert len(done.stderr.splitlines()) == 2, f"one line and a hint were promised, not {done.stderr}"
    assert done.stdout == ""


def test_a_fault_is_a_line_not_a_traceback(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MAQET_CACHE_DIR", str(tmp_path / "file"))
    done = command("guest", "build")
    assert done.returncode == 1
    assert done.stderr == (
        f"pytest-maqet: the cache directory {tmp_path}/file is not a directory\n"
        "hint: name a directory of your own in the environment variable MAQET_CACHE_DIR\n"
    )


def test_a_full_disk(command: Command) -> None:
    with Path("/dev/full").open("w") as full:
        done = command("schema", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, "pytest-maqet: No space left on device\n")


def test_a_reader_that_goes_away(command: Command) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = command("schema", capture_output=False, stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, ""), "`pytest-maqet schema | head` must be quiet"


def test_ctrl_c(cache: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\necho running >&2\nexec sleep 60\n")
    slow.chmod(0o700)
    arguments = ["guest", "build", "--kernel", str(slow), "--busybox", str(slow)]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest_maqet.cli.main", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    with process, process.stderr:
        said = process.stderr.readline()
        while said and not said.startswith("writing"):
            said = process.stderr.readline()
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does it: to all who are in front
        assert process.stderr.read() == "", "Ctrl-C is no fault to talk about"
        assert process.wait(30) == 130
    assert not list(cache.rglob("building-*")), "half a guest was left behind"
