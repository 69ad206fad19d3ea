"""A whole suite: a hundred tests, each with a pristine VM of its own, as clones and by boots.

A hundred boots would take minutes and tell no more than ten: the time of ten, without what a run of one test
takes, counts ten times.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import Check, Figures

TESTS, BOOTS = 100, 10
#: How many times faster than by boots.
RATIO = 15
YAML = "vms: {web: {image: builtin:linux, memory: 256M}}\n"
SUITE = """
import os, pytest

@pytest.mark.parametrize("number", range(int(os.environ["BENCH_TESTS"])))
def test_pristine(web, number):
    assert web.run("ls /tmp; echo mine > /tmp/mine").stdout == ""
"""


def measure() -> Figures:
    """Seconds of each run, and what its summary says."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "maqet.yaml").write_text(YAML)
        (folder / "test_suite.py").write_text(SUITE)
        _run(folder, 1)  # makes the template
        one, _ = _run(folder, 1, "--maqet-start=boot")
        few, _ = _run(folder, 1 + BOOTS, "--maqet-start=boot")
        boots = (few - one) / BOOTS * TESTS
        clones, said = _run(folder, TESTS)
        both, said_both = _run(folder, TESTS, "-n", "2")
    rows = [
        (f"{BOOTS} boots, times {TESTS // BOOTS}", f"{boots:.1f} s", f"{1000 * boots / TESTS:.0f} ms", ""),
        (f"{TESTS} clones", f"{clones:.1f} s", f"{1000 * clones / TESTS:.0f} ms", f"{boots / clones:.1f}"),
        (f"{TESTS} clones, -n 2", f"{both:.1f} s", f"{1000 * both / TESTS:.0f} ms", f"{boots / both:.1f}"),
    ]
    return Figures(
        (f"{TESTS} tests", "whole run", "for each test", "times faster"),
        rows,
        [
            Check(
                f"{TESTS} tests in one process: {RATIO} times as fast as {TESTS} boots",
                f"{boots / clones:.1f} times",
                boots / clones >= RATIO,
            ),
            Check("with -n 2 faster still", f"{boots / both:.1f} times", both < clones),
            Check(
                "no VM booted once there is a template",
                said,
                "none booted" in said and "none booted" in said_both,
            ),
        ],
        ["the clones' runs are whole pytest runs, start of Python and collection included"],
    )


def _run(folder: Path, tests: int, *arguments: str) -> tuple[float, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--verbosity=0", *arguments],
        cwd=folder,
        env=inherited | {"BENCH_TESTS": str(tests), "MAQET_ARTIFACTS": str(folder / "artifacts")},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    said = re.search(r"^\d+ VM starts?: .*", done.stdout, re.MULTILINE)
    return seconds, said[0] if said else "nothing in the summary"
