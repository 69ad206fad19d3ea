"""The command as its users have it: a process of its own, with a cache of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
