"""Managers with a template store of their own, which knows the guests and answers of the user's cache."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from manager_rig import NewManager

from pytest_maqet.config import load_config
from pytest_maqet.host_cache import cache_dir
from pytest_maqet.machine import VirtualMachine
from pytest_maqet.management.manager import Manager
from pytest_maqet.settings import Settings
from pytest_maqet.templates.store import TemplateStore


class Quiet:
    """A listener that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def started(self, vm: VirtualMachine) -> None:
        self.told.append(("started", vm.name))

    def ready(self, vm: VirtualMachine) -> None:
        self.told.append(("ready", vm.name))

    def failed(self, vm: VirtualMachine | None, error: BaseException) -> None:
        self.told.append(("failed", str(error)))

    def stopping(self, vm: VirtualMachine) -> None:
        self.told.append(("stopping", vm.name))

    def progress(self, line: str) -> None:
        self.told.append(("progress", line))


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory without templates; guests and QEMU's answers are those of the user's."""
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    for entry in cache_dir().iterdir():
        if entry.name != "templates":
            (cache / entry.name).symlink_to(entry)
    monkeypatch.setenv("MAQET_CACHE_DIR", str(cache))
    return cache


@pytest.fixture
def store(own_cache: Path) -> TemplateStore:
    return TemplateStore.kept()


@pytest.fixture
def new_manager(own_cache: Path, tmp_path: Path) -> Iterator[NewManager]:
    managers: list[Manager] = []

    def start(vms: dict[str, dict[str, Any]], **settings: Any) -> Manager:
        yaml = tmp_path / "maqet.yaml"
        yaml.write_text(json.dumps({"vms": vms}))
        settings.setdefault("artifacts", tmp_path / "artifacts")
        managers.append(Manager(load_config([yaml]), Settings(**settings), listener=Quiet()))
        return managers[-1]

    yield start
    for manager in managers:
        manager.close()
