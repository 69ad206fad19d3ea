"""What `vm.checkpoint` and `vm.restore` take, of a guest that uses little memory and of one that uses much.

A checkpoint of a new name writes into a file that grows, one of a known name into what the last one has left.
CPU time is QEMU's own; the rest of a time is waiting, for the disk or for other work on the machine.

Before that the kernel's free memory is used once, by a file that is deleted again: on a machine that is
virtual itself, memory that nobody has used yet comes page by page, and takes several times as long as the
checkpoints that are to be measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median

from library_vms import a_run, a_vm
from measuring import Check, Figures, milliseconds

from pytest_maqet.machine import VirtualMachine, launch

SAMPLES = 10
#: Bytes that the guest is made to fill besides what it uses anyway.
FILLED = 95_000_000
#: What each call may take, in seconds.
MOST_SECONDS = 0.4

Taken = tuple[float, float]


def measure() -> Figures:
    """Seconds and CPU seconds of each call: the guest as it has booted, and with random bytes in memory."""
    rows, checks = [], []
    with a_run() as host, closing(launch(a_vm("linux", memory="256M"), host)) as vm:
        _touch_memory(vm.workdir / "touched")
        for load in ("as booted", f"{FILLED / 1e6:.0f} MB of random bytes more"):
            if rows:
                vm.run(f"head -c {FILLED} /dev/urandom >/tmp/filled", timeout=300)
            for call, found in _calls(vm, load).items():
                seconds = median(taken[0] for taken in found)
                busy = median(taken[1] for taken in found)
                worst = max(taken[0] for taken in found)
                rows.append((load, call, *map(milliseconds, (seconds, worst, busy))))
                if call != "first command after it":
                    limit = milliseconds(MOST_SECONDS)
                    checks.append(
                        Check(
                            f"{call} ({load}): at most {limit}",
                            milliseconds(seconds),
                            seconds <= MOST_SECONDS,
                        )
                    )
    return Figures(("builtin:linux, 256 MB", "call", "median", "longest", "QEMU's CPU time"), rows, checks)


def _calls(vm: VirtualMachine, load: str) -> dict[str, list[Taken]]:
    found: dict[str, list[Taken]] = {
        "checkpoint, new name": [],
        "checkpoint, same name": [],
        "restore": [],
        "first command after it": [],
    }
    vm.checkpoint("same")
    for number in range(SAMPLES):
        calls: list[Callable[[], object]] = [
            lambda name=f"{load} {number}": vm.checkpoint(name),
            lambda: vm.checkpoint("same"),
            lambda: vm.restore("same"),
            lambda: vm.run("true"),
        ]
        for taken, call in zip(found.values(), calls, strict=True):
            taken.append(_timed(vm.pid, call))
    return found


def _touch_memory(file: Path) -> None:
    block = bytes(1_000_000)
    with file.open("wb") as touched:
        for _ in range(3 * SAMPLES * FILLED // len(block)):
            touched.write(block)
    file.unlink()


def _timed(pid: int, call: Callable[[], object]) -> Taken:
    busy, started = _cpu_time(pid), time.perf_counter()
    call()
    return time.perf_counter() - started, _cpu_time(pid) - busy


def _cpu_time(pid: int) -> float:
    """CPU time of all threads of a process, in seconds (sched-stats: the first number is in nanoseconds)."""
    total = 0
    for stat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(stat.read_text().split()[0])
        except OSError:
            continue  # the thread has ended
    return total / 1e9
