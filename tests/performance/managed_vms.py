"""VMs by the manager, without pytest: clones, boots and spares."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytest_maqet.config import load_config
from pytest_maqet.machine import VirtualMachine
from pytest_maqet.management.manager import Manager
from pytest_maqet.management.wishes import Scope, Wanted
from pytest_maqet.settings import Settings


class Deaf:
    """A listener that nothing reaches."""

    def started(self, vm: VirtualMachine) -> None: ...
    def ready(self, vm: VirtualMachine) -> None: ...
    def failed(self, vm: VirtualMachine | None, error: BaseException) -> None: ...
    def stopping(self, vm: VirtualMachine) -> None: ...
    def progress(self, line: str) -> None: ...


@contextmanager
def a_manager(yaml: str, *more: Path, **settings: Any) -> Iterator[Manager]:
    """A manager for the VMs of a YAML text, which goes over the files `more`."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "maqet.yaml"
        file.write_text(yaml)
        config = load_config([*more, file])
        manager = Manager(config, Settings(artifacts=Path(scratch), **settings), listener=Deaf())
        try:
            yield manager
        finally:
            manager.close()


def wanted(manager: Manager, name: str, number: int, **overrides: Any) -> Wanted:
    """What the fixture of test `number` asks for."""
    config = manager.config.vm(name, overrides, source="benchmark")
    return Wanted(config, Scope("function", str(number)), overrides=overrides)
