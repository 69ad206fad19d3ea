"""Managers that share a run as xdist's workers do, and a look at what they leave behind."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from resource_rig import Leftovers, Quiet, Share

from pytest_maqet.config import load_config
from pytest_maqet.host_cache import cache_dir
from pytest_maqet.management.manager import Manager
from pytest_maqet.settings import Settings

MIB = 1 << 20
#: The user's cache, with the guests and the answers about QEMU: some tests have another home.
CACHE = cache_dir()


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A base directory of runs of this test's own; nothing may be left in it."""
    path = Path(tempfile.mkdtemp(prefix="mq", dir="/tmp"))
    monkeypatch.setenv("MAQET_RUN_BASE", str(path))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def leftovers(base: Path) -> Leftovers:
    """What is left of the runs in `base`."""
    return Leftovers(base)


@pytest.fixture
def share(base: Path, tmp_path: Path) -> Iterator[Share]:
    """`share(vms, max_memory=…)` gives a manager for one more worker of a run; close the first one last."""
    made: list[Manager] = []

    def start(vms: dict[str, dict[str, Any]], **settings: Any) -> Manager:
        yaml = tmp_path / "maqet.yaml"
        yaml.write_text(json.dumps({"vms": vms}))
        settings.setdefault("artifacts", tmp_path / "artifacts")
        run_id = made[0].run_dir.name if made else None  # the first one owns the run
        worker = f"gw{len(made)}"
        made.append(
            Manager(load_config([yaml]), Settings(**settings), worker=worker, run_id=run_id, listener=Quiet())
        )
        return made[-1]

    yield start
    for manager in reversed(made):
        manager.close()


@pytest.fixture
def in_thread() -> Iterator[Callable[[Callable[[], Any]], threading.Thread]]:
    """Calls a function in a thread, which must have ended with the test."""
    started: list[threading.Thread] = []

    def start(function: Callable[[], Any]) -> threading.Thread:
        started.append(threading.Thread(target=function, daemon=True))
        started[-1].start()
        return started[-1]

    yield start
    for thread in started:
        thread.join(60)
        assert not thread.is_alive(), "a start waits for ever"


@pytest.fixture
def suite(pytester: pytest.Pytester, base: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A test suite with one small VM, run by a pytest of its own."""
    for name in list(os.environ):
        if name.startswith(("MAQET_", "PYTEST_")) and name not in ("MAQET_RUN_BASE", "MAQET_CACHE_DIR"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MAQET_CACHE_DIR", os.environ.get("MAQET_CACHE_DIR") or str(CACHE))
    (pytester.path / "maqet.yaml").write_text("vms: {nano: {image: builtin:nano, memory: 16M}}\n")
    return pytester
