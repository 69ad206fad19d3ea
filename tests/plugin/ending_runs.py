"""Runs of pytest that a test starts, watches, and ends in unfriendly ways."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def start(suite: Any, *arguments: str) -> subprocess.Popen[bytes]:
    """Begin to run a suite, in a session (and process group) of its own; its output goes to `out.txt`."""
    with (suite.path / "out.txt").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
            cwd=suite.path,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> float:
    """Wait until something is true; fails after that many seconds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"{what} took more than {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - began


def alive(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
