"""What a pristine, booted VM costs: a clone, one from the pool, a boot; until its first command is answered.

All by the manager, as the fixtures use it. Clones and boots are measured in turns; a boot is the same VM with
`start: boot`. Debian is the guest that `make debian-guest` builds; without it its row is left out.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from statistics import median

from managed_vms import a_manager, wanted
from measuring import Check, Figures, Pairs, in_turns, milliseconds

from pytest_maqet.management.manager import Manager

LINUX = "vms: {linux: {image: builtin:linux, memory: 256M}}\n"
DEBIAN = "vms: {linux: {extends: debian}}\n"
#: Pairs of clone and boot, and how many times faster a clone must be.
LINUX_PAIRS, LINUX_RATIO = 8, 15
DEBIAN_PAIRS, DEBIAN_RATIO = 3, 80
#: Takes from the pool, and the longest that their median may be, in seconds.
TAKES, TAKE_SECONDS = 20, 0.020
#: Guest memory that the clone time must not depend on by more than this share.
SIZES, FLAT = ("256M", "512M", "1G", "2G", "4G"), 0.25


def measure() -> Figures:
    """All rows."""
    rows, checks, remarks = [], [], []
    with a_manager(LINUX) as manager:
        _against_boots(manager, "builtin:linux, 256M", LINUX_PAIRS, LINUX_RATIO, rows, checks)
        taken = _taken(manager)
    rows.append(
        ("builtin:linux, 256M", "from the pool", "", milliseconds(median(taken)), "", str(len(taken)))
    )
    checks.append(
        Check(
            f"from the pool to the first command: at most {milliseconds(TAKE_SECONDS)} (median)",
            f"{milliseconds(median(taken))}, shortest {milliseconds(min(taken))}",
            median(taken) <= TAKE_SECONDS,
        )
    )
    debian = _debian()
    if debian is None:
        remarks.append("Debian: not measured, `make debian-guest` builds it")
    else:
        with a_manager(DEBIAN, debian) as manager:
            _against_boots(manager, "Debian 12, 512M", DEBIAN_PAIRS, DEBIAN_RATIO, rows, checks)
    return Figures(("guest", "way", "boot", "clone", "boot / clone", "pairs"), rows, checks, remarks)


def measure_sizes() -> Figures:
    """Clone times of guests that differ in their memory, in turns."""
    yaml = "vms: {linux: {image: builtin:linux}}\n"
    times: dict[str, list[float]] = {size: [] for size in SIZES}
    with a_manager(yaml) as manager:
        for number in range(8):
            for size in SIZES if number % 2 else reversed(SIZES):
                seconds = _ready_in(manager, number, memory=size)
                if number:  # the first one makes the template
                    times[size].append(seconds)
    medians = {size: median(found) for size, found in times.items()}
    least, most = min(medians.values()), max(medians.values())
    return Figures(
        ("guest memory", "clone, until it is ready", "shortest", "clones"),
        [
            (size, milliseconds(medians[size]), milliseconds(min(found)), str(len(found)))
            for size, found in times.items()
        ],
        [
            Check(
                f"flat within {FLAT:.0%} from {SIZES[0]} to {SIZES[-1]} of guest memory",
                f"{most / least - 1:.0%} between the quickest and the slowest",
                most <= least * (1 + FLAT),
            )
        ],
    )


def _against_boots(
    manager: Manager, guest: str, pairs: int, ratio: int, rows: list[tuple[str, ...]], checks: list[Check]
) -> None:
    _first_command_in(manager, -1)  # makes the template
    numbers = iter(range(2 * pairs))
    found = in_turns(
        lambda: _first_command_in(manager, next(numbers), start="boot"),
        lambda: _first_command_in(manager, next(numbers)),
        pairs,
    )
    faster = _faster(found)
    rows.append(
        (
            guest,
            "clone",
            milliseconds(found.base_median),
            milliseconds(found.ours_median),
            f"{faster:.1f}",
            str(pairs),
        )
    )
    checks.append(
        Check(
            f"{guest}: a clone's first command {ratio} times as soon as a boot's",
            f"{faster:.1f} times",
            faster >= ratio,
        )
    )


def _faster(found: Pairs) -> float:
    return median(boot / clone for boot, clone in zip(found.base, found.ours, strict=True))


def _first_command_in(manager: Manager, number: int, **overrides: str) -> float:
    started = time.perf_counter()
    live = manager.acquire(wanted(manager, "linux", number, **overrides))
    live.vm.run("true")
    seconds = time.perf_counter() - started
    manager.stop(live.vm)
    return seconds


def _ready_in(manager: Manager, number: int, **overrides: str) -> float:
    started = time.perf_counter()
    live = manager.acquire(wanted(manager, "linux", number, **overrides))
    seconds = time.perf_counter() - started
    manager.stop(live.vm)
    return seconds


def _taken(manager: Manager) -> list[float]:
    """Each spare has been ready for a while, as after a test of two seconds."""
    times = []
    for number in range(TAKES):
        manager.want_next([wanted(manager, "linux", number)])
        time.sleep(2)
        times.append(_first_command_in(manager, number))
    hits = manager.stats()["pool_hits"]
    if hits != TAKES:
        raise SystemExit(f"only {hits} of {TAKES} came from the pool: is the machine that busy?")
    return times


def _debian() -> Path | None:
    """The configuration of the Debian guest, where it was built."""
    script = Path(__file__).parents[2] / "scripts" / "debian-guest"
    done = subprocess.run([script, "--path"], capture_output=True, text=True, check=False)
    return Path(done.stdout.strip()) / "maqet.yaml" if done.returncode == 0 else None
