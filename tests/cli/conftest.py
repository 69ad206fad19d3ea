"""The command as its users have it: a process of its own, with a cache of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_maqet.cli.main import main

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache directory of this test's commands."""
    path = tmp_path / "cache"
    monkeypatch.setenv("MAQET_CACHE_DIR", str(path))
    return path


@pytest.fixture
def command(cache: Path, tmp_path: Path) -> Command:
    """Runs `pytest-maqet` with arguments, to its end."""

    def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "pytest_maqet.cli.main", *map(str, arguments)]
        options = {"capture_output": True, "text": True, "timeout": 60, "cwd": tmp_path} | options
        return subprocess.run(program, check=False, **options)

    return run


@pytest.fixture
def clean(cache: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `pytest-maqet clean` with arguments in this process, which is quicker."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        try:
            status = main(["clean", *arguments])
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, said.out, said.err)

    return run
