"""Processes that the ownership tests start, watch and ask."""

from __future__ import annotations

import json
import select
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_maqet.runs.lock_holders import lock_holder
from pytest_maqet.runs.vm_directory import VmDirectory

#: A "QEMU" that lives until it is ended: a keeper does not care what it runs.
SLEEP = ("/bin/sleep", "300")


@dataclass
class Owner:
    """Another process that owns a VM: `owner.py`, which obeys lines on its stdin."""

    process: subprocess.Popen[str]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def vm(self) -> VmDirectory:
        return VmDirectory(Path(self.facts["vm"]))

    def ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


@dataclass
class Watched:
    """A process seen by pidfd from the time it was known to live."""

    pid: int
    pidfd: int

    def gone(self, seconds: float = 1.0) -> bool:
        """Whether it ends within that time (a zombie has ended)."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def alive(self, seconds: float = 0.3) -> bool:
        """Whether it is still there after that time."""
        return not self.gone(seconds)


def keeper_pid(vm: VmDirectory) -> int:
    """The pid of the living keeper of that VM."""
    pid = lock_holder(vm.keeper_lock)
    assert pid is not None, f"no keeper holds {vm.keeper_lock}"
    return pid


def eventually(condition: Callable[[], object], seconds: float = 3.0) -> bool:
    """Whether the condition becomes true within that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return bool(condition())
