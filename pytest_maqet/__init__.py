"""Real QEMU machines as pytest fixtures.

Everything a test or a type annotation needs is importable from here. The names are resolved on first use,
so that loading the plugin in a run that needs no VM costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_maqet.errors import (
        ChannelError,
        CommandError,
        CommandTimeout,
        ConfigError,
        DiskError,
        GuestPanic,
        LockTimeout,
        MaqetError,
        NoRoom,
        NotSupported,
        QemuDied,
        QMPCommandError,
        StartError,
        WaitTimeout,
    )
    from pytest_maqet.guest.commands import CompletedCommand
    from pytest_maqet.guest.guest_process import GuestProcess
    from pytest_maqet.machine.virtual_machine import VirtualMachine
    from pytest_maqet.runs.exit_status import Exit
    from pytest_maqet.templates.template import Template

__version__ = "0.1.0"

__all__ = [
    "ChannelError",
    "CommandError",
    "CommandTimeout",
    "CompletedCommand",
    "ConfigError",
    "DiskError",
    "Exit",
    "GuestPanic",
    "GuestProcess",
    "LockTimeout",
    "MaqetError",
    "NoRoom",
    "NotSupported",
    "QMPCommandError",
    "QemuDied",
    "StartError",
    "Template",
    "VirtualMachine",
    "WaitTimeout",
]

_HOMES = {
    "CompletedCommand": "pytest_maqet.guest.commands",
    "Exit": "pytest_maqet.runs.exit_status",
    "GuestProcess": "pytest_maqet.guest.guest_process",
    "Template": "pytest_maqet.templates.template",
    "VirtualMachine": "pytest_maqet.machine.virtual_machine",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "pytest_maqet.errors")), name)
