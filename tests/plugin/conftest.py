"""A small test suite of its own for each test of the plugin, run by a pytest of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_maqet.management.manager  # noqa: F401 - loaded once, for all runs in this process
from pytest_maqet.host_cache import cache_dir

#: The user's cache, with the guests and the answers about QEMU: pytester gives each test a home of its own.
CACHE = cache_dir()

#: Two VMs of the smallest guest, which boots in a moment.
TWO_NANOS = """
default: nano
vms:
  nano:
    image: builtin:nano
    memory: 16M
  store:
    extends: nano
    scope: session
"""


class Suite:
    """A directory with a maqet.yaml and tests, and a private base directory for its runs."""

    def __init__(self, pytester: pytest.Pytester, run_base: Path) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self.run_base = run_base

    def yaml(self, text: str, name: str = "maqet.yaml") -> Path:
        return self.file(name, text)

    def file(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def tests(self, text: str, name: str = "test_it.py") -> Path:
        return self.file(name, text)

    def conftest(self, text: str) -> Path:
        return self.file("conftest.py", text)

    def run(self, *arguments: str, timeout: float = 120) -> pytest.RunResult:
        """Run the suite in a process of its own."""
        return self.pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments, timeout=timeout)

    def run_here(self, *arguments: str) -> pytest.RunResult:
        """Run the suite in this process, which is quicker: for what starts no VM."""
        return self.pytester.runpytest_inprocess("-p", "no:cacheprovider", *arguments)

    def left_over(self) -> list[str]:
        """What runs left in their base directory, and processes that still use it."""
        files = [str(path.relative_to(self.run_base)) for path in self.run_base.glob("*")]
        return files + [line for line in processes() if str(self.run_base) in line]


def processes() -> list[str]:
    """The command lines of all processes."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[Suite]:
    # pytester keeps variables of the outer run, and its paths are too long for sockets.
    for name in list(os.environ):
        if name.startswith(("MAQET_", "PYTEST_")) and name != "MAQET_CACHE_DIR":
            monkeypatch.delenv(name)
    monkeypatch.setenv("MAQET_CACHE_DIR", os.environ.get("MAQET_CACHE_DIR") or str(CACHE))
    run_base = Path(tempfile.mkdtemp(prefix="mq", dir="/tmp"))
    monkeypatch.setenv("MAQET_RUN_BASE", str(run_base))
    made = Suite(pytester, run_base)
    made.yaml(TWO_NANOS)
    yield made
    shutil.rmtree(run_base, ignore_errors=True)


@pytest.fixture
def two_nanos() -> str:
    return TWO_NANOS


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache without templates, but with the guests and answers of the user's."""
    cache = tmp_path_factory.mktemp("cache")
    for entry in CACHE.iterdir():
        if entry.name != "templates":
            (cache / entry.name).symlink_to(entry)
    monkeypatch.setenv("MAQET_CACHE_DIR", str(cache))
    return cache
