"""VMs started and stopped in one process, over and over: nothing of it grows."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import endurance
import pytest


def test_sixty_starts_and_stops_leave_nothing_and_nothing_grows() -> None:
    # In a process of its own: pytest's has threads, files and memory of its own that come and go.
    command = [sys.executable, str(Path(endurance.__file__)), "--starts", "60"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "60 starts and stops" in done.stdout


@pytest.mark.parametrize("name", ["threads", "descriptors", "children", "files", "memory", "family_memory"])
def test_what_grows_is_complained_of(name: str) -> None:
    level = endurance.Sample(2, 10, 1, 67, 37000, 43000)
    steady = [replace(level, threads=1 + number % 2, memory=37000 + number % 7) for number in range(100)]
    assert endurance.complaints(steady) == []
    step = 200 if "memory" in name else 1
    leaking = [
        replace(one, **{name: getattr(one, name) + step * (number // 4)}) for number, one in enumerate(steady)
    ]
    assert [name in complaint for complaint in endurance.complaints(leaking)] == [True]
