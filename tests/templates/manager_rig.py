"""VMs as fixtures ask a manager for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_maqet.machine import VirtualMachine
from pytest_maqet.management.manager import Manager
from pytest_maqet.management.wishes import Scope, Wanted

#: Starts a manager for VMs by name; keyword arguments are settings.
NewManager = Callable[..., Manager]


def wanted(manager: Manager, name: str, test: str = "test", **overrides: Any) -> Wanted:
    """What a test's fixture asks for."""
    config = manager.config.vm(name, overrides, source="test")
    return Wanted(config, Scope("function", test), overrides=overrides)


def acquired(manager: Manager, name: str, test: str = "test", **overrides: Any) -> VirtualMachine:
    return manager.acquire(wanted(manager, name, test, **overrides)).vm


def last_start(manager: Manager) -> dict[str, Any]:
    return manager.stats()["starts"][-1]
