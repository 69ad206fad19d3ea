"""Boot to ready: through the plugin's fixture, and by the library alone, against plain QEMU.

Plain QEMU has the very same arguments (see `plain_qemu`). The fixture's time is the whole set-up phase of
a test that asks for `vm`, measured around pytest's own hook; the library's is the call of `launch`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import plain_qemu
from library_vms import a_run, a_vm
from measuring import Check, Figures, Pairs, in_turns, milliseconds

from pytest_maqet.machine import Host, launch

#: What both guests print when they are up.
BANNER = b"guest ready"
#: A start may take this share of plain QEMU's time, and these seconds, more.
SHARE, SECONDS = 0.05, 0.050
SUITE = Path(__file__).parent / "boot_suite"
PYTEST_ARGUMENTS = ("-q", "-p", "no:cacheprovider", "-p", "set_up_times")
#: Pairs within one pytest run, and runs, by guest.
FIXTURE_PAIRS = {"nano": (5, 4), "linux": (4, 1)}
LIBRARY_PAIRS = {"nano": 12, "linux": 3}


def measure() -> Figures:
    """All rows."""
    with a_run() as host:
        library = {guest: by_library(guest, host, pairs) for guest, pairs in LIBRARY_PAIRS.items()}
    rows, checks, remarks = [], [], []
    for guest, (pairs, runs) in FIXTURE_PAIRS.items():
        found, first = by_fixture(guest, pairs, runs)
        for way, result in (("fixture", found), ("`machine.launch`", library[guest])):
            rows.append(_row(guest, way, result))
            checks.append(_check(guest, way, result))
        if runs > 1:
            remarks.append(
                f"builtin:{guest}: the first VM of a pytest run also pays for imports: "
                f"{milliseconds(first - found.ours_median)} more than a later one (median of {runs} runs)"
            )
    return Figures(
        ("guest", "way", "plain QEMU", "ours", "ours / plain", "ours - plain", "pairs"), rows, checks, remarks
    )


def by_library(guest: str, host: Host, pairs: int) -> Pairs:
    """`launch` against plain QEMU, in one process; the first boot, which fills caches, is not counted."""
    vm = launch(a_vm(guest), host)
    command_line, workdir = vm.command_line, vm.workdir
    vm.close()

    def ours() -> float:
        started = time.perf_counter()
        vm = launch(a_vm(guest), host)
        took = time.perf_counter() - started
        vm.close()
        return took

    return in_turns(lambda: plain_qemu.boot(command_line, workdir, BANNER), ours, pairs)


def by_fixture(guest: str, pairs: int, runs: int) -> tuple[Pairs, float]:
    """Set-up of tests with a VM against plain QEMU in the same pytest runs; median of the first ones."""
    found = [_pytest(guest, pairs) for _ in range(runs)]
    together = Pairs(
        tuple(time for times in found for time in times["plain"]),
        tuple(time for times in found for time in times["fixture"]),
    )
    return together, median(times["first"][0] for times in found)


def _pytest(guest: str, pairs: int) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "times.json"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        subprocess.run(
            [sys.executable, "-m", "pytest", *PYTEST_ARGUMENTS, "--maqet-vm", guest, "boots.py"],
            cwd=SUITE,
            env=inherited
            | {
                "PYTHONPATH": os.pathsep.join(paths),
                "BENCH_TIMES": str(result),
                "BENCH_PAIRS": str(pairs),
                "MAQET_ARTIFACTS": scratch,
            },
            stdout=sys.stderr,
            check=True,
        )
        times: dict[str, list[float]] = json.loads(result.read_text())
        return times


def _row(guest: str, way: str, found: Pairs) -> tuple[str, ...]:
    return (
        f"builtin:{guest}",
        way,
        milliseconds(found.base_median),
        milliseconds(found.ours_median),
        f"{found.ratio:.3f}",
        milliseconds(found.more),
        str(len(found.base)),
    )


def _check(guest: str, way: str, found: Pairs) -> Check:
    beyond = median(found.beyond(SHARE))
    return Check(
        f"builtin:{guest}, {way}: at most {SHARE:.0%} and {milliseconds(SECONDS)} more than plain QEMU",
        f"{SHARE:.0%} and {milliseconds(beyond)}" if beyond >= 0 else f"less than {SHARE:.0%} more",
        beyond <= SECONDS,
    )
