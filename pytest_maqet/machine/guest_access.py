"""Commands and consoles of a handle: from `vm.run(…)` to a channel and back."""

from __future__ import annotations

import re
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pytest_maqet.deadline import Deadline
from pytest_maqet.guest.commands import CommandRequest, CompletedCommand
from pytest_maqet.guest.console import Console
from pytest_maqet.guest.guest_process import GuestProcess

if TYPE_CHECKING:
    from pytest_maqet.machine.core import MachineCore
    from pytest_maqet.machine.waits import Since

T = TypeVar("T")


class GuestCalls:
    """How the handles of consoles, commands and guest processes block (`guest.console.ConsoleOwner`)."""

    def __init__(self, vm: MachineCore) -> None:
        self._vm = vm

    def run(self, request: CommandRequest, timeout: float | None, *, check: bool) -> CompletedCommand[Any]:
        """Run a command to its end over the VM's channel."""
        deadline = self.command_deadline(timeout)
        return self._checked(self._vm.on_loop(self._vm.life.run(request, deadline)), check)

    def spawn(self, request: CommandRequest, timeout: float | None) -> GuestProcess[Any]:
        """Start a command that goes on in the guest."""
        deadline = self.command_deadline(timeout)
        return GuestProcess(self._vm.on_loop(self._vm.life.spawn(request, deadline)), self)

    def channel_name(self) -> str:
        """The channel that commands take."""
        life = self._vm.life
        deadline = self.command_deadline(None)
        return self._vm.on_loop(life.guarded(life.channel(deadline), deadline)).name

    def consoles(self) -> Mapping[str, Console]:
        """A handle on each serial port."""
        life = self._vm.life
        return {name: Console(life.serial_port(name), self) for name in life.vitals.consoles}

    # -- what the handles of guest/ need -------------------------------------------------------------------

    def call(self, work: Coroutine[Any, Any, T], deadline: Deadline, *, grace: float = 0.0) -> T:
        """Run on the loop and block; ends when the guest panics or QEMU dies, `grace` seconds later."""
        return self._vm.on_loop(self._vm.life.guarded(work, deadline, grace=grace))

    def command_deadline(self, timeout: float | None) -> Deadline:
        """The deadline of one call; None means `timeouts: command`."""
        return self._vm.deadline(timeout, self._vm.config.timeouts.command)

    def console_position(self, name: str, since: str) -> int:
        """Where text since then begins."""
        return self._vm.console_position(name, since)

    def expect_on_console(
        self, name: str, pattern: str, *, timeout: float | None, since: str
    ) -> re.Match[str]:
        """`vm.wait.console` on this port."""
        return self._vm.wait.console(pattern, timeout=timeout, since=cast("Since", since), console=name)

    def run_on_console(
        self, name: str, command: str | Sequence[str], *, check: bool, timeout: float | None, **request: Any
    ) -> CompletedCommand[Any]:
        """`vm.run` over this port and no other channel."""
        life = self._vm.life
        made = CommandRequest.of(command, **request)
        deadline = self.command_deadline(timeout)
        return self._checked(self._vm.on_loop(life.run_over(life.shells[name], made, deadline)), check)

    def _checked(self, result: CompletedCommand[Any], check: bool) -> CompletedCommand[Any]:  # noqa: FBT001
        if check:
            result.check(self._vm.config.name)
        return result
