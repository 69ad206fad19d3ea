"""What every start of a VM needs from the manager, whoever makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pytest_maqet.machine.host import Host
from pytest_maqet.management.launch import Launcher
from pytest_maqet.management.records import Ledger
from pytest_maqet.management.room import Rooms
from pytest_maqet.management.wishes import Wanted
from pytest_maqet.settings import Settings


@dataclass(frozen=True)
class Means:
    """The launcher, the books of starts and of memory; `host_of` is the run's side of a VM."""

    settings: Settings
    launcher: Launcher
    ledger: Ledger
    host_of: Callable[[Wanted], Host]
    rooms: Rooms
