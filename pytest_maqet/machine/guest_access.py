"""Commands and consoles of a handle: from `vm.run(…)` to a channel and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_maqet.guest.commands import CommandRequest, CompletedCommand, GuestProcess
from pytest_maqet.guest.console import Console

if TYPE_CHECKING:
    from pytest_maqet.machine.core import MachineCore


class GuestAccess:
    """What `vm.run`, `vm.spawn` and `vm.consoles` do."""

    def __init__(self, vm: MachineCore) -> None:
        self._vm = vm

    def run(self, request: CommandRequest, timeout: float | None, *, check: bool) -> CompletedCommand[Any]:
        """Run a command to its end."""
        vm = self._vm
        deadline = vm.deadline(timeout, vm.config.timeouts.command)
        result = vm.on_loop(vm.life.run(request, deadline))
        if check:
            result.check(vm.config.name)
        return result

    def channel_name(self) -> str:
        """The channel that commands take."""
        vm = self._vm
        return vm.on_loop(vm.life.channel(vm.deadline(None, vm.config.timeouts.command))).name
