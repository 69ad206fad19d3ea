"""Starts and stops VMs in one process, over and over, and looks whether anything of it grows.

    python tests/chaos/endurance.py                  1,000 starts and stops
    python tests/chaos/endurance.py --starts 60

Prints a line every fiftieth of the way and the figures at the end; exit status 1 when something grew.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

from chaos_home import Home

from pytest_maqet.config import load_config
from pytest_maqet.machine import VirtualMachine
from pytest_maqet.management.manager import Manager
from pytest_maqet.management.wishes import Scope, Wanted
from pytest_maqet.settings import Settings

YAML = """
vms:
  nano: {image: "builtin:nano", memory: 16M}
  booted: {extends: nano, start: boot, storage: [{name: data, size: 1M}]}
"""
#: Memory that may stay for each start, in KiB: the books of the run have a record for each.
KIB_PER_START = 4.0
#: Memory that may come in a whole run however short it is, in KiB: caches that fill.
KIB_IN_ALL = 2048.0


class Deaf:
    """A listener that nothing reaches."""

    def started(self, vm: VirtualMachine) -> None: ...
    def ready(self, vm: VirtualMachine) -> None: ...
    def failed(self, vm: VirtualMachine | None, error: BaseException) -> None: ...
    def stopping(self, vm: VirtualMachine) -> None: ...
    def progress(self, line: str) -> None: ...


@dataclass(frozen=True)
class Sample:
    """What the process has after a VM was stopped; memory in KiB, without and with the processes below it."""

    threads: int
    descriptors: int
    children: int
    files: int
    memory: int
    family_memory: int


def by_hand(manager: Manager, name: str, number: int) -> None:
    """As a test that calls `maqet.start` and `maqet.stop`."""
    vm = manager.start(name)
    echo(vm, number)
    manager.stop(vm)


def for_a_test(manager: Manager, name: str, number: int) -> None:
    """As the plugin does it for a fixture, with a spare for the next test."""
    manager.want_next([wish(manager, name, number)])
    scope = Scope("function", str(number))
    echo(manager.acquire(wish(manager, name, number)).vm, number)
    manager.end_scope(scope)


def again(manager: Manager, name: str, number: int) -> None:
    """Stopped, and started again from its disks."""
    with manager.start(name) as vm:
        vm.kill()
        vm.start()
        echo(vm, number)


def wish(manager: Manager, name: str, number: int) -> Wanted:
    """What the fixture of test `number` asks for."""
    return Wanted(manager.config.vm(name, {}, source="endurance"), Scope("function", str(number)))


def echo(vm: VirtualMachine, number: int) -> None:
    """Something said and heard, so that console, cursors and connections are used."""
    vm.console.send(f"{number}\n")
    vm.wait.console(f"echo: {number}", timeout=30)


WAYS: tuple[tuple[Callable[[Manager, str, int], None], str], ...] = (
    (by_hand, "nano"),
    (for_a_test, "nano"),
    (by_hand, "booted"),
    (again, "booted"),
)


def endure(home: Home, starts: int, say: Callable[[str], None]) -> list[Sample]:
    """Start and stop that many VMs, in all ways by turns; a sample after each."""
    # Room for all samples is taken before: their own growth is not what is looked for.
    samples: list[Sample | None] = [None] * starts
    with tempfile.TemporaryDirectory(dir=home.path / "tmp") as scratch:
        file = Path(scratch) / "maqet.yaml"
        file.write_text(YAML)
        settings = Settings(artifacts=Path(scratch), timeout_scale=8.0)
        manager = Manager(load_config([file]), settings, listener=Deaf())
        try:
            for number in range(starts):
                way, name = WAYS[number % len(WAYS)]
                way(manager, name, number)
                samples[number] = sample(home)
                if (number + 1) % max(1, starts // 50) == 0:
                    say(f"{number + 1}: {samples[number]}")
        finally:
            manager.close()
    return [one for one in samples if one is not None]


def sample(home: Home) -> Sample:
    """What there is now."""
    below = children(os.getpid())
    own = pss(os.getpid())
    return Sample(
        threads=threads(),
        descriptors=entries("/proc/self/fd"),
        children=len(below),
        files=sum(1 for name in ("runs", "tmp", "cache", "xdg") for _ in (home.path / name).rglob("*")),
        memory=own,
        family_memory=own + sum(pss(pid) for pid in below),
    )


def threads() -> int:
    """This process's threads. One that was joined is seen by the kernel a little longer: look again."""
    fewest = entries("/proc/self/task")
    end = time.monotonic() + 0.2
    while fewest > 1 and time.monotonic() < end:
        time.sleep(0.002)
        fewest = min(fewest, entries("/proc/self/task"))
    return fewest


def entries(folder: str) -> int:
    """How many entries a folder has."""
    return sum(1 for _ in Path(folder).iterdir())


def children(pid: int) -> list[int]:
    """All processes below this one that are its own or its children's."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended meanwhile
            for child in task.read_text().split():
                found += [int(child), *children(int(child))]
    return found


def pss(pid: int) -> int:
    """A process's share of memory, in KiB (proc_pid_smaps(5)); 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)


def growth(samples: list[Sample]) -> dict[str, float]:
    """By how much each quantity grows with a start, after a tenth for warming up.

    The median of the slopes between a sample and the one half of the way later (Theil and Sen's estimate,
    by Cox and Stuart's pairs): a few outliers, a collection of garbage say, do not move it. The ways to start
    come by turns, so only samples of the same way are compared.
    """
    kept = samples[len(samples) // 10 :]
    half = len(kept) // 2 // len(WAYS) * len(WAYS)
    return {
        field.name: statistics.median(
            (getattr(later, field.name) - getattr(early, field.name)) / half
            for early, later in zip(kept, kept[half:], strict=False)
        )
        for field in fields(Sample)
    }


def complaints(samples: list[Sample]) -> list[str]:
    """What grew, in words."""
    memory = max(KIB_PER_START, KIB_IN_ALL / len(samples))
    found = []
    for name, slope in growth(samples).items():
        allowed = memory if "memory" in name else 0.0
        if slope > allowed:
            found.append(f"{name} grows by {slope:.3f} with each start (allowed: {allowed:.3f})")
    return found


def main() -> int:
    """Endure, and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--starts", type=int, default=1000)
    wanted = parser.parse_args()
    home = Home()
    os.environ |= {"MAQET_RUN_BASE": str(home.runs), "MAQET_CACHE_DIR": str(home.path / "cache")}
    began = time.monotonic()
    try:
        samples = endure(home, wanted.starts, lambda line: print(line, flush=True))
        left = list(home.runs.iterdir())
    finally:
        home.remove()
    seconds = time.monotonic() - began
    print(f"{len(samples)} starts and stops in {seconds:.0f} s; left behind: {left or 'nothing'}")
    slopes = growth(samples)
    first, last = samples[len(samples) // 10], samples[-1]
    print("| | after warming up | at the end | growth with each start |\n|---|---|---|---|")
    for field in fields(Sample):
        name = field.name
        print(f"| {name} | {getattr(first, name)} | {getattr(last, name)} | {slopes[name]:.3f} |")
    found = complaints(samples)
    for complaint in found:
        print(f"VIOLATION: {complaint}")
    return 1 if found or left else 0


if __name__ == "__main__":
    sys.exit(main())
