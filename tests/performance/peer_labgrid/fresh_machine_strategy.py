"""The states of labgrid's target: off, or booted to its shell. `environment.yaml` imports this."""

from __future__ import annotations

import enum

import attr
from labgrid import target_factory
from labgrid.strategy import Strategy, StrategyError


class Status(enum.Enum):
    """Where the target is."""

    unknown = 0
    off = 1
    shell = 2


@target_factory.reg_driver
@attr.s(eq=False)
class FreshMachineStrategy(Strategy):
    """From off to shell is a boot. QEMUDriver stays active: its activation asks QEMU for its version."""

    bindings = {"qemu": "QEMUDriver", "shell": "ShellDriver"}  # noqa: RUF012 - labgrid's own form

    status = attr.ib(default=Status.unknown)

    def transition(self, state: str) -> None:
        """Bring the target to a state by its name."""
        wanted = Status[state]
        if wanted is self.status:
            return
        if wanted is Status.off:
            self.target.deactivate(self.shell)
            self.target.activate(self.qemu)
            self.qemu.off()
        elif wanted is Status.shell and self.status is Status.off:
            self.qemu.on()
            self.target.activate(self.shell)
        else:
            raise StrategyError(f"there is no way from {self.status} to {wanted}")
        self.status = wanted
