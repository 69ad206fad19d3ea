"""A virtual environment with labgrid, which we are compared with and do not depend on.

It lies in the user's cache directory and has the pytest and pytest-xdist that we run with.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from pytest_maqet.host_cache import cache_dir

#: The newest release when the suite was written.
LABGRID = "26.0.1"


class Unavailable(Exception):
    """labgrid cannot be installed here; says why in one line."""


def python() -> Path | None:
    """The Python of the environment, where there is one already."""
    found = _folder() / "bin" / "python"
    return found if found.exists() and _answers(found) else None


def made() -> Path:
    """The Python of the environment, which is made where there is none; raises `Unavailable`."""
    if found := python():
        return found
    folder = _folder()
    wanted = [f"labgrid=={LABGRID}", *(f"{name}=={version(name)}" for name in ("pytest", "pytest-xdist"))]
    print(f"installing {' '.join(wanted)} into {folder}", file=sys.stderr)
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *wanted],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [
                done.stderr.strip()
            ]
            raise Unavailable(f"labgrid {LABGRID} cannot be installed: {said[-1]}")
    if not (found := python()):
        raise Unavailable(f"labgrid {LABGRID} was installed and cannot be imported")
    return found


def _folder() -> Path:
    return cache_dir("benchmarks") / f"labgrid-{LABGRID}-python{sys.version_info[0]}.{sys.version_info[1]}"


def _answers(found: Path) -> bool:
    """Also brings labgrid's modules into the page cache, as earlier runs have brought ours."""
    loaded = [str(found), "-c", "import labgrid.pytestplugin, labgrid.driver, xdist"]
    return subprocess.run(loaded, capture_output=True, check=False).returncode == 0
