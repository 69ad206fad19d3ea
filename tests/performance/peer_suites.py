"""The same suite three ways: by hand with plain QEMU, with labgrid, and with this plugin.

Each test wants a fresh, booted machine, runs `uname -s`, and leaves a file behind that must not have been
there. All have the same QEMU, machine type, CPU, memory, accelerator and guest, as our command line has them;
the peers' machines have no device besides the serial port. Each suite is a process of its own, and a peer's
run lies between two of ours, which it is compared with.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

import labgrid_venv
from library_vms import a_run, a_vm
from measuring import Check, Figures

from pytest_maqet.host_cache import cache_dir
from pytest_maqet.machine.plan import plan_for
from pytest_maqet.qemu.inputs import Inputs

HERE = Path(__file__).parent
TESTS = 10
#: What the peers' command lines take over from ours.
SHARED = ("machine", "accel", "cpu", "smp", "m", "kernel", "initrd", "append")
#: Options of each suite's pytest; a plugin that the suite does not need is not loaded.
OPTIONS = {
    "maqet": ("-p", "no:hypothesispytest"),
    "raw": ("-p", "no:hypothesispytest", "-p", "no:maqet"),
    "labgrid": ("--lg-env", "environment.yaml"),
}


@dataclass(frozen=True)
class Run:
    """One run of a suite: seconds of the process, of each test's set-up and call, and what it printed."""

    whole: float
    tests: tuple[float, ...]
    printed: str

    @property
    def test(self) -> float:
        """The median of its tests."""
        return median(self.tests)

    @property
    def summary(self) -> str:
        """What our plugin says of its starts."""
        found = re.search(r"^\d+ VM starts?: .*", self.printed, re.MULTILINE)
        return found[0] if found else "nothing"


@dataclass(frozen=True)
class Bench:
    """What all runs share: a scratch folder, what the machine is like, the Python of each suite."""

    scratch: Path
    env: dict[str, str]
    pythons: dict[str, Path]

    def run(self, suite: str, *, workers: int = 0, tests: int = TESTS) -> Run:
        """Run a suite; raises `RuntimeError` with its output when not all of its tests pass."""
        result = self.scratch / "times.json"
        result.unlink(missing_ok=True)
        command = [str(self.pythons[suite]), "-m", "pytest", "-p", "no:cacheprovider", "-p", "report_times"]
        command += [*OPTIONS[suite], "-n", str(workers), f"{suite}_guests.py"]
        own = {"PEER_TESTS": str(tests), "PEER_TIMES": str(result)}
        started = time.perf_counter()
        done = subprocess.run(
            command,
            cwd=HERE / f"peer_{suite}",
            env=self.env | own,
            capture_output=True,
            text=True,
            check=False,
        )
        took = time.perf_counter() - started
        phases = json.loads(result.read_text()) if result.exists() else {}
        passed = tuple(one["setup"] + one["call"] for one in phases.values() if len(one) == 3)
        if done.returncode or len(passed) != tests:
            raise RuntimeError(
                f"{len(passed)} of {tests} tests passed: {done.args}\n{done.stdout}{done.stderr}"
            )
        return Run(took, passed, done.stdout)


@contextmanager
def bench() -> Iterator[Bench]:
    """A bench with an empty template cache; guests and what is known of QEMU come from the user's cache."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="peers-") as folder:
        scratch = Path(folder)
        cache = scratch / "cache"
        cache.mkdir(mode=0o700)
        machine = the_machine()
        for entry in cache_dir().iterdir():
            if entry.name not in ("templates", "benchmarks"):
                (cache / entry.name).symlink_to(entry)
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTEST", "MAQET", "LG_"))
        }
        env |= {
            f"{prefix}_{name.upper()}": value for prefix in ("PEER", "LG") for name, value in machine.items()
        }
        env |= {
            "PYTHONPATH": str(HERE),
            "MAQET_CACHE_DIR": str(cache),
            "MAQET_ARTIFACTS": str(scratch / "artifacts"),
        }
        yield Bench(scratch, env, {"raw": Path(sys.executable), "maqet": Path(sys.executable)})


def the_machine() -> dict[str, str]:
    """What the peers' machines have of ours, by QEMU's option; `qemu` is the program."""
    with a_run() as host:
        plan = plan_for(a_vm("linux", memory="256M"), host)
        assert plan.guest is not None
        guest = plan.guest
        argv = plan.command_line(Inputs(kernel=guest.kernel, initrd=guest.initrd, append=guest.append)).argv
    options = {name: argv[argv.index(f"-{name}") + 1] for name in SHARED}
    for file in (options["kernel"], options["initrd"]):
        Path(file).read_bytes()  # into the page cache: the first suite is not to pay for all
    return {"qemu": argv[0], **options}


def measure() -> Figures:
    """All rows."""
    load = os.getloadavg()[0]
    rows: list[tuple[str, ...]] = []
    with bench() as here:
        missing = ""
        try:
            here.pythons["labgrid"] = labgrid_venv.made()
        except labgrid_venv.Unavailable as error:
            missing = str(error)
        first = here.run("maqet")
        later: list[Run] = []
        for workers, how in ((0, ""), (2, ", `-n 2`")):
            ours = [here.run("maqet", workers=workers)]
            peers = []
            for suite, name in (("raw", "plain QEMU by hand"), ("labgrid", "labgrid")):
                if suite not in here.pythons:
                    peers.append((name + how, "not measured", *["-"] * 4))
                    continue
                run = here.run(suite, workers=workers)
                ours.append(here.run("maqet", workers=workers))
                peers.append(_row(name + how, [run], ours[-2:]))
            if not workers:
                peers.append(_row("maqet, first run", [first], ours))
            rows += [*peers, _row(f"maqet, later run{how}", ours, ours)]
            later += ours
    not_booted = [run for run in later if "none booted" in run.summary]
    return Figures(
        (
            "suite",
            "whole run",
            "a test, median",
            "a test, longest",
            "whole run / maqet's",
            "a test / maqet's",
        ),
        rows,
        [
            Check(
                "a later run of ours boots nothing, by its own summary",
                f"so in {len(not_booted)} of {len(later)} runs",
                len(not_booted) == len(later),
            )
        ],
        [
            f'{TESTS} tests in each suite; "a test" is its set-up and call; maqet\'s later runs: the medians '
            f"of {len(later) // 2} each",
            missing
            or f"labgrid {labgrid_venv.LABGRID}; all with pytest {version('pytest')} and pytest-xdist "
            f"{version('pytest-xdist')}",
            f"our summary of the first run: {first.summary}",
            f"our summary of a later run: {later[0].summary}",
            f"the load average was {load:.1f} at the beginning and {os.getloadavg()[0]:.1f} at the end",
        ],
    )


def _row(name: str, runs: list[Run], ours: list[Run]) -> tuple[str, ...]:
    def typical(of: list[Run], part: Callable[[Run], float]) -> float:
        return median(part(run) for run in of)

    whole, test = typical(runs, lambda run: run.whole), typical(runs, lambda run: run.test)
    return (
        name,
        f"{whole:.2f} s",
        f"{test * 1000:.0f} ms",
        f"{max(time for run in runs for time in run.tests) * 1000:.0f} ms",
        f"{whole / typical(ours, lambda run: run.whole):.1f}",
        f"{test / typical(ours, lambda run: run.test):.1f}",
    )
