"""Fixtures of the ownership tests: everything in them is a real process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from run_processes import SLEEP, Owner, Watched

from pytest_maqet.runs.keeper_process import KeeperProcess
from pytest_maqet.runs.process import QemuProcess
from pytest_maqet.runs.run_directory import RunDirectory
from pytest_maqet.runs.vm_directory import VmDirectory


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A base directory of this test's own, short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="mq-", dir="/tmp"))
    monkeypatch.setenv("MAQET_RUN_BASE", str(path))
    yield path
    for guard in path.glob("*/*/keeper.lock"):
        if keeper := KeeperProcess.find(VmDirectory(guard.parent)):
            keeper.end(1)
            keeper.close()
    shutil.rmtree(path)


@pytest.fixture
def run(base: Path) -> Iterator[RunDirectory]:
    """A run of this process."""
    run = RunDirectory.create()
    yield run
    run.close()


@pytest.fixture
def launch(run: RunDirectory) -> Iterator[Callable[..., QemuProcess]]:
    """Launches a process under a keeper, on the lease `main` of this process; ended with the test."""
    lease = run.lease("main")
    launched: list[QemuProcess] = []

    def start(*argv: str, **options: Any) -> QemuProcess:
        directory = options.pop("directory", None) or run.new_vm_directory("vm")
        process = QemuProcess.launch(argv or SLEEP, directory, lease.path, **options)
        launched.append(process)
        return process

    yield start
    for process in launched:
        process.dismiss(1)
        process.close()


@pytest.fixture
def owner(base: Path) -> Iterator[Callable[..., Owner]]:
    """Starts processes that own a VM each: `owner(run_id)`, `owner(run_id, lease="run", argv=[…])`."""
    owners: list[Owner] = []

    def start(run_id: str, lease: str = "main", argv: tuple[str, ...] = SLEEP) -> Owner:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("owner.py")), run_id, lease, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        owners.append(Owner(process))
        assert process.stdout is not None
        owners[-1].facts = json.loads(process.stdout.readline())
        return owners[-1]

    yield start
    for one in owners:
        one.process.kill()
        one.process.wait()
        for pipe in (one.process.stdin, one.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def watch() -> Iterator[Callable[[int | None], Watched]]:
    """Opens pidfds, closed with the test."""
    opened: list[int] = []

    def start(pid: int | None) -> Watched:
        assert pid is not None, "the process to watch does not exist"
        opened.append(os.pidfd_open(pid))
        return Watched(pid, opened[-1])

    yield start
    for fd in opened:
        os.close(fd)
