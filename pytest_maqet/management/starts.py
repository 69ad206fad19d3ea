"""How each VM comes up: from the pool, as a clone of a template, or by a boot, with the reason for that."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pytest_maqet.config import VmConfig
from pytest_maqet.errors import GuestPanic, MaqetError, NotSupported, QemuDied, StartError
from pytest_maqet.machine.forwarding import forwards
from pytest_maqet.machine.host import Host
from pytest_maqet.machine.plan import plan_for
from pytest_maqet.machine.template_key import template_key
from pytest_maqet.management.means import Means
from pytest_maqet.management.pool import Pool
from pytest_maqet.management.room import Room
from pytest_maqet.management.sharing import SharedVms, start_lock_timeout
from pytest_maqet.management.template_making import Templates
from pytest_maqet.management.template_reasons import NoTemplate
from pytest_maqet.management.ways import Boot, Clone, Way, clone_of
from pytest_maqet.runs.nursery import living_nursery
from pytest_maqet.templates.manifest import Damaged
from pytest_maqet.templates.store import TemplateStore

if TYPE_CHECKING:
    from pytest_maqet.machine import VirtualMachine
    from pytest_maqet.management.managed_machine import ManagedMachine
    from pytest_maqet.management.records import StartRecord
    from pytest_maqet.management.wishes import Wanted

#: How many clones may fail to come up before the VM is booted instead.
_TRIES = 2


class Starts:
    """The starts of one process of a run."""

    def __init__(
        self,
        means: Means,
        templates: Templates,
        shared: SharedVms,
        workers: int,
    ) -> None:
        self._means = means
        self._templates = templates
        self._shared = shared
        self.pool = Pool(self._spare, means.rooms.has_room_for_spare, workers)
        with suppress(StartError):  # whoever starts a VM is told
            living_nursery()  # so that it is ready when the first VM is

    def obtain(self, wanted: Wanted, host: Host, record: StartRecord) -> ManagedMachine:
        """Start a VM, or join the one that all workers share; its memory is seen to before.

        Raises what a start can raise, NoRoom where there is no memory for it.
        """
        config = wanted.config
        with self._means.rooms.of(wanted) as room:
            host = replace(host, room=room)
            launch = partial(self._bring_up, wanted, host, record)
            if config.scope != "run" or not wanted.shared:
                vm = launch()
                room.give_to(vm)
                return vm
            room.patient = self.needs_room(wanted)  # else nobody starts it, unless it has died
            if room.patient:
                room.reserve()  # before the lock, which others wait for
            join = partial(self._means.launcher.join, config=config, host=host)
            return self._shared.obtain(config, record, start_lock_timeout(config, host), launch, join)

    def needs_room(self, wanted: Wanted) -> bool:
        """Whether memory is missing for it: there is neither a spare nor a VM of all workers."""
        if wanted.config.scope == "run" and wanted.shared:
            return not self._shared.is_there(wanted.config)
        return not self.pool.has(wanted)

    def _bring_up(self, wanted: Wanted, host: Host, record: StartRecord) -> ManagedMachine:
        """Bring a VM up, as a clone if possible; one that is no good costs its template, which is made anew.

        Raises what a start can raise.
        """
        spare = self.pool.take(wanted)
        if spare is not None:
            with suppress(MaqetError):
                self._take_over(spare, wanted, host)
                record.how, record.pooled = "clone", True
                self._note_wakening(spare)
                return spare
        if wanted.config.scope != "run":  # else it was done, before the start lock
            host.room.reserve()
        faults: list[MaqetError] = []
        while True:
            way = self.way_for(wanted, host) if len(faults) < _TRIES else self._without(wanted, faults[-1])
            record.how, record.reason = way.how, way.reason
            try:
                vm = self._means.launcher.launch(
                    way, wanted.config, host, wanted.kind, excused=_excused(way, wanted)
                )
            except _excused(way, wanted) as error:
                assert isinstance(way, Clone)
                self._doubt(way, error)
                faults.append(error)
                continue
            self._note_wakening(vm)
            return vm

    def ready_again(self, vm: VirtualMachine, wanted: Wanted) -> Clone:
        """What puts a VM back to its ready state, with the forwarded ports that it has now.

        Raises NotSupported for one that cannot be a clone.
        """
        wanted = replace(wanted, config=vm.config)
        ports: dict[int, tuple[str, int]] = {}
        with suppress(MaqetError):  # QEMU is dead: what was forwarded is not known any more
            ports = vm.on_loop(forwards(vm.life, vm.deadline(None, vm.config.timeouts.qmp)))
        try:
            if wanted.template is not None:
                way = clone_of(wanted.template, wanted.config, vm.host)
            else:
                way = Clone(*self._templates.of(wanted, vm.host, lasting=True))
        except NoTemplate as error:
            raise NotSupported(
                f"{vm.name} cannot be put back to its ready state: {error}",
                hint="take a checkpoint when it is ready, and restore that",
            ) from None
        host_ports = {guest: port for guest, (_host, port) in ports.items()}
        return replace(way, host_ports=host_ports, mailbox=vm.life.vitals.mailbox)

    def _note_wakening(self, vm: ManagedMachine) -> None:
        """Tell, once for each VM, of clones that are more alike than they should be."""
        answer = vm.wakening
        if answer is None:
            return
        if answer.reseed is not None:
            self._means.ledger.note(
                f"clones of {vm.name} draw the same random numbers: they could not be reseeded "
                f"({answer.reseed}); maqet-wake in the guest, or perl or python3, would do it"
            )
        if answer.clock is not None:
            self._means.ledger.note(f"clones of {vm.name} have their template's clock ({answer.clock})")

    def _spare(self, wanted: Wanted, begun: Callable[[ManagedMachine], None]) -> ManagedMachine | None:
        """One more clone, of a template that is there already."""
        with self._means.rooms.of_spare(wanted) as room:
            host = replace(self._means.host_of(wanted), room=room)
            way = self.way_for(wanted, host, make=False)
            if not isinstance(way, Clone):
                return None
            vm = self._means.launcher.spare(way, wanted.config, host, begun)
            room.give_to(vm)
        return vm

    def _take_over(self, spare: ManagedMachine, wanted: Wanted, host: Host) -> None:
        """Give a spare to a test; raises MaqetError, and ends it, where that cannot be."""
        try:
            _refuse_outdated(spare, wanted, host)
            assert isinstance(spare.room, Room)
            spare.room.claim()
        except BaseException:
            spare.discard()
            raise
        self._means.launcher.hand_over(spare, host.artifacts)

    def way_for(self, wanted: Wanted, host: Host, *, make: bool = True) -> Way:
        """How this VM starts: as a clone where that is wanted and can be, its template being made if need be.

        Without `make` a template that is not there is a reason to boot.
        Raises NotSupported, with the reason, when `start: clone` is said and it cannot, and what a boot
        raises when the template's VM does not become ready.
        """
        config = wanted.config
        if wanted.template is not None:
            return clone_of(wanted.template, config, host)
        mode = self._mode(config)
        if mode == "boot":
            return Boot("start: boot" if config.start else "--maqet-start boot")
        try:
            lasting = mode == "clone"
            frozen = self._templates.of(wanted, host, lasting=lasting) if make else None
            return Clone(*(frozen or self._templates.there(wanted, host, lasting=lasting)))
        except NoTemplate as error:
            if mode == "clone":
                raise NotSupported(
                    f"{config.name} cannot be started as a clone: {error}",
                    hint="`start: auto` boots what cannot be cloned",
                ) from None
            return Boot(str(error))

    def _without(self, wanted: Wanted, error: MaqetError) -> Way:
        if self._mode(wanted.config) == "clone":
            raise error
        return Boot(f"clones of it do not come up: {error.message.splitlines()[0]}")

    def _mode(self, config: VmConfig) -> str:
        return config.start or self._means.settings.start

    def _doubt(self, way: Clone, error: MaqetError) -> None:
        """A clone did not come up: where that may be its template's fault, it is taken out of use."""
        way.lease.close()
        if not isinstance(error, (Damaged, GuestPanic)):
            return
        manifest = way.frozen.manifest
        reason = error.message.splitlines()[0]
        self._means.ledger.note(
            f"a template of {manifest.vm} was thrown away, a clone did not come up: {reason}"
        )
        TemplateStore(way.frozen.path.parent).remove(manifest.key, way.frozen.path)


def _refuse_outdated(spare: ManagedMachine, wanted: Wanted, host: Host) -> None:
    """Raise StartError when files that the VM is made of have changed since the spare was made."""
    assert spare.life.frozen is not None
    of_then = wanted.template.base if wanted.template is not None else spare.life.frozen.manifest.key
    if template_key(plan_for(wanted.config, host)) != of_then:
        raise StartError(f"{spare.name}: the spare is of files that have changed since")


def _excused(way: Way, wanted: Wanted) -> tuple[type[MaqetError], ...]:
    """Failures of a start after which there is another way: those of a clone whose template we chose."""
    if not isinstance(way, Clone) or wanted.template is not None:
        return ()
    return (Damaged, GuestPanic, QemuDied)
