"""Commands and consoles of a handle: from `vm.run(…)` to a channel and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pytest_maqet.errors import NotSupported
from pytest_maqet.guest.commands import CommandRequest, CompletedCommand, GuestProcess
from pytest_maqet.guest.console import Console

if TYPE_CHECKING:
    from pytest_maqet.machine.virtual_machine import VirtualMachine
