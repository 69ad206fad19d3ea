"""`-n auto` starts no more workers than there is memory for; xdist asks before all else is configured."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pytest_maqet.errors import MaqetError
from pytest_maqet.options import read_settings

if TYPE_CHECKING:
    from pytest_maqet.settings import Settings

#: The environment variable with which xdist is told the number outright; see xdist's documentation.
SAID = "PYTEST_XDIST_AUTO_NUM_WORKERS"
#: Why there are fewer workers than xdist wanted, for the header.
REASON: pytest.StashKey[str] = pytest.StashKey()


def capped(config: pytest.Config, asked: int) -> int:
    """`asked`, or the number of workers that can have the largest VM of the YAML each; at least 1.

    A test that wants more VMs than one waits for room as any start does. What cannot be read is complained of
    later, when the plugin is configured.
    """
    if os.environ.get(SAID):
        return asked
    try:
        settings = read_settings(config)
        if not settings.config:
            return asked
        most, reason = _most(settings)
    except (MaqetError, pytest.UsageError, OSError):
        return asked
    if asked <= most:
        return asked
    config.stash[REASON] = f"{most} worker{'s' * (most != 1)} instead of {asked}: {reason}"
    return most


def _most(settings: Settings) -> tuple[int, str]:
    from pytest_maqet.config import load_config
    from pytest_maqet.host_memory import host_memory
    from pytest_maqet.management.room_rules import MARGIN, with_qemu

    vms = load_config(settings.config, settings=settings.set).vms.values()
    largest = max(vms, key=lambda vm: vm.memory)
    each = f"{largest.name} takes {largest.memory >> 20} MiB"
    if settings.max_memory is not None:
        most = settings.max_memory // largest.memory
        return max(1, most), f"--maqet-max-memory is {settings.max_memory >> 20} MiB, and {each}"
    host = host_memory()
    if host is None:
        return 1 << 20, ""
    most = (host.available - MARGIN) // with_qemu(largest.memory)
    return max(1, most), f"{host.source} has {host.available >> 20} MiB available, and {each}"
