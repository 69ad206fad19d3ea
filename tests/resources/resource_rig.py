"""VMs as fixtures ask for them, and what must not be left when all is over."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_maqet.machine import VirtualMachine
from pytest_maqet.management.manager import Manager
from pytest_maqet.management.wishes import Scope, Wanted

#: Gives one more worker's manager of a run: `share(vms, **settings)`.
Share = Callable[..., Manager]

NANO = {"image": "builtin:nano", "memory": "16M"}
MIB = 1 << 20


class Quiet:
    """A listener that keeps what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def started(self, vm: VirtualMachine) -> None:
        pass

    def ready(self, vm: VirtualMachine) -> None:
        pass

    def failed(self, vm: VirtualMachine | None, error: BaseException) -> None:
        pass

    def stopping(self, vm: VirtualMachine) -> None:
        pass

    def progress(self, line: str) -> None:
        self.lines.append(line)


def wanted(manager: Manager, name: str = "nano", test: str = "test", **overrides: Any) -> Wanted:
    """What a test's fixture asks for."""
    config = manager.config.vm(name, overrides, source="test")
    scope = config.scope
    return Wanted(config, Scope(scope, "" if scope == "run" else test), overrides=overrides)


def acquired(manager: Manager, name: str = "nano", test: str = "test", **overrides: Any) -> VirtualMachine:
    """The VM that a test's fixture gets."""
    return manager.acquire(wanted(manager, name, test, **overrides)).vm


def eventually(true: Callable[[], bool], seconds: float = 20) -> bool:
    """Whether it comes true in that time."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def descriptors() -> list[str]:
    """What this process has open, but for the marks of guests and images that it uses until its end."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(entry.readlink()))
    return [name for name in found if not name.endswith(".use")]


class Leftovers:
    """Processes, files and descriptors that a fault has left behind."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.descriptors = len(descriptors())

    def processes(self) -> list[str]:
        """Command lines of the processes that have to do with the base directory."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if f"{self.base}/" in line:
                    found.append(line)
        return found

    def check(self) -> None:
        """Fail unless processes, files and descriptors are as before."""
        assert eventually(lambda: not self.processes()), f"processes are left: {self.processes()}"
        files = [str(path) for path in self.base.rglob("*")]
        assert files == [], f"files are left: {files}"
        now = descriptors()
        assert len(now) <= self.descriptors, f"{self.descriptors} descriptors were open, now it is {now}"
