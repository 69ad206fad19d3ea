"""The ways in which a VM comes up: how its QEMU starts, and what is done until a test may have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pytest_maqet.config import VmConfig
from pytest_maqet.errors import ConfigError, StartError
from pytest_maqet.loop import LoopThread
from pytest_maqet.machine.cloning import cloned_life
from pytest_maqet.machine.freezing import template_life
from pytest_maqet.machine.host import Host
from pytest_maqet.machine.life import Life
from pytest_maqet.machine.plan import plan_for
from pytest_maqet.machine.preparing import after_clone, prepare
from pytest_maqet.machine.starting import new_life
from pytest_maqet.machine.template_key import template_key
from pytest_maqet.machine.waking import awaken
from pytest_maqet.qemu.events import Mailbox
from pytest_maqet.runs.leases import Lease
from pytest_maqet.templates.folders import USE
from pytest_maqet.templates.store import Draft
from pytest_maqet.templates.template import Frozen, Template

if TYPE_CHECKING:
    from pytest_maqet.machine import VirtualMachine


class Way(Protocol):
    """One way for one VM."""

    @property
    def how(self) -> str:
        """The word for it in records: "boot" or "clone"."""
        ...

    @property
    def reason(self) -> str:
        """Why it is a boot and not a clone."""
        ...

    def life(self, config: VmConfig, host: Host, loop: LoopThread) -> Life:
        """Start a QEMU; raises what a start can raise, and leaves nothing then."""
        ...

    def finish(self, vm: VirtualMachine) -> None:
        """Make the VM ready for a test; raises what a wait or a command can raise."""
        ...


@dataclass(frozen=True)
class Boot:
    """From pristine disks; `reason` says why it is no clone."""

    reason: str = ""
    how = "boot"

    def life(self, config: VmConfig, host: Host, loop: LoopThread) -> Life:
        """A fresh QEMU on fresh overlays."""
        return new_life(config, host, loop)

    def finish(self, vm: VirtualMachine) -> None:
        """Wait for `ready:`, and prepare the guest as its template's would have been."""
        vm.wait_ready()
        prepare(vm)


@dataclass(frozen=True)
class Clone:
    """From a template; `lease` keeps it, and goes over to the VM.

    Forwarded ports are free ones but for those in `host_ports`; events go into `mailbox`.
    """

    frozen: Frozen
    lease: Lease
    host_ports: Mapping[int, int] = field(default_factory=dict)
    mailbox: Mailbox = field(default_factory=Mailbox)
    how = "clone"
    reason = ""

    def life(self, config: VmConfig, host: Host, loop: LoopThread) -> Life:
        """A QEMU that has the template's memory and disks, paused."""
        try:
            life = cloned_life(
                config,
                host,
                loop,
                self.frozen,
                self.lease,
                host_ports=self.host_ports,
                mailbox=self.mailbox,
            )
        except BaseException:
            self.lease.close()
            raise
        life.frozen, life.template = self.frozen, self.lease
        return life

    def finish(self, vm: VirtualMachine) -> None:
        """Wake the guest, and let it become one of its own."""
        deadline = vm.deadline(None, vm.config.timeouts.command)
        vm.wakening = vm.on_loop(awaken(vm.life, self.frozen.manifest.wake, deadline))
        after_clone(vm)


def clone_of(template: Template, config: VmConfig, host: Host) -> Clone:
    """A clone of this template, whose configuration may differ from it outside of the machine.

    Raises as `refuse_other_machine`, and StartError where the template is gone.
    """
    refuse_other_machine(template, template_key(plan_for(config, host)))
    try:
        return Clone(template.frozen, Lease.join(template.frozen.path / USE))
    except StartError:
        raise StartError(
            f"the template {template.frozen.path} is gone",
            hint="ask maqet.template(…) for it again, instead of keeping it from one run to another",
        ) from None


def refuse_other_machine(template: Template, key: str) -> None:
    """Raise an error when `key` is not that of the machine that the template was made of.

    That is ConfigError where the machine differs, StartError where a file of it has changed since.
    """
    if key == template.base:
        return
    changed = template.frozen.manifest.outdated()
    if changed is not None:
        raise StartError(
            f"the template of {template.name!r} is out of date: {changed}",
            hint="ask maqet.template(…) for it again when its files are as they should be",
        )
    raise ConfigError(
        f"a template of {template.name!r} is frozen as it is: what was changed is its machine's",
        hint="say the change in maqet.template(…) or in the YAML, and a template of its own is made; "
        "a file that `prepare:` takes from this host counts as well",
    )


@dataclass(frozen=True)
class Mould:
    """A VM that is booted to be frozen, with its memory and disks in the draft's folder."""

    draft: Draft
    how = "boot"
    reason = ""

    def life(self, config: VmConfig, host: Host, loop: LoopThread) -> Life:
        """A fresh QEMU with everything in the draft."""
        return template_life(config, host, loop, self.draft)

    def finish(self, vm: VirtualMachine) -> None:
        """Wait for `ready:`, and prepare the guest."""
        vm.wait_ready()
        prepare(vm)
