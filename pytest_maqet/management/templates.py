"""Whether a VM starts as a clone, and of which template; templates are made here when one is missing.

One process makes a template, under that template's lock; all others that want it wait for that one only.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_maqet.config import VmConfig
from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import (
    ConfigError,
    GuestPanic,
    LockTimeout,
    MaqetError,
    NotSupported,
    QemuDied,
    StartError,
)
from pytest_maqet.loop import lease_loop, release_loop
from pytest_maqet.machine import VirtualMachine
from pytest_maqet.machine.freezing import Access, access_of, copied_life, freeze
from pytest_maqet.machine.host import Host
from pytest_maqet.machine.migration import Unfreezable
from pytest_maqet.machine.plan import Plan, plan_for
from pytest_maqet.machine.preparing import StepFailed
from pytest_maqet.machine.template_key import template_key, why_not
from pytest_maqet.management.pool import Pool
from pytest_maqet.management.records import Ledger
from pytest_maqet.management.ways import Boot, Clone, Mould, Way
from pytest_maqet.runs.leases import Lease
from pytest_maqet.runs.run_directory import RunDirectory
from pytest_maqet.settings import Settings
from pytest_maqet.templates.identity import prepared_key
from pytest_maqet.templates.manifest import Damaged, Manifest
from pytest_maqet.templates.store import USE, Draft, TemplateStore
from pytest_maqet.templates.template import Frozen, Template

if TYPE_CHECKING:
    from pytest_maqet.management.launch import Launcher, ManagedMachine
    from pytest_maqet.management.records import StartRecord
    from pytest_maqet.management.wishes import Wanted

#: What a template takes beside the guest's memory: device state, disks, logs. Bytes.
ROOM = 64 << 20
#: How many clones may fail to come up before the VM is booted instead.
_TRIES = 2
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})


class NoTemplate(Exception):
    """There is no template, for this reason, and none can be made."""


@dataclass(frozen=True)
class _Wish:
    """What is known of a VM's template before there is one."""

    wanted: Wanted
    host: Host
    plan: Plan
    key: str

    @property
    def config(self) -> VmConfig:
        """The VM's configuration."""
        return self.wanted.config

    @property
    def patience(self) -> Deadline:
        """How long freezing may take."""
        return Deadline.after(self.config.timeouts.ready, self.host.scale(self.plan.accelerator))


class Templates:
    """The templates of one process of a run."""

    def __init__(
        self,
        settings: Settings,
        run: RunDirectory,
        launcher: Launcher,
        ledger: Ledger,
        owner: Callable[[], str],
        host_of: Callable[[Wanted], Host],
        workers: int,
    ) -> None:
        self._settings = settings
        self._run = run
        self._launcher = launcher
        self._ledger = ledger
        self._owner = owner
        self._host_of = host_of
        self._kept: TemplateStore | None = None
        self.pool = Pool(self._spare, workers)

    # -- which way -----------------------------------------------------------------------------------------

    def bring_up(self, wanted: Wanted, host: Host, record: StartRecord) -> ManagedMachine:
        """Bring a VM up, as a clone if possible; one that is no good costs its template, which is made anew.

        Raises what a start can raise.
        """
        spare = self.pool.take(wanted)
        if spare is not None:
            with suppress(MaqetError):
                self._launcher.hand_over(spare, host.artifacts)
                record.how, record.pooled = "clone", True
                return spare
        faults: list[MaqetError] = []
        while True:
            way = self.way_for(wanted, host) if len(faults) < _TRIES else self._without(wanted, faults[-1])
            record.how, record.reason = way.how, way.reason
            own_template = isinstance(way, Clone) and wanted.template is None
            try:
                vm = self._launcher.launch(way, wanted.config, host, wanted.kind, last_try=not own_template)
            except StepFailed:
                raise
            except (StartError, QemuDied, GuestPanic) as error:
                if not isinstance(way, Clone) or not own_template:
                    raise
                self._distrust(way, error)
                faults.append(error)
                continue
            self._note_wakening(vm)
            return vm

    def _note_wakening(self, vm: ManagedMachine) -> None:
        """Tell, once for each VM, of clones that are more alike than they should be."""
        answer = vm.wakening
        if answer is None:
            return
        if answer.reseed is not None:
            self._ledger.note(
                f"clones of {vm.name} draw the same random numbers: they could not be reseeded ({answer.reseed}); "
                "maqet-wake in the guest, or perl or python3, would do it"
            )
        if answer.clock is not None:
            self._ledger.note(f"clones of {vm.name} have their template's clock ({answer.clock})")

    def _spare(self, wanted: Wanted) -> ManagedMachine | None:
        """One more clone, of a template that is there already."""
        host = self._host_of(wanted)
        way = self.way_for(wanted, host, make=False)
        return self._launcher.spare(way, wanted.config, host) if isinstance(way, Clone) else None

    def way_for(self, wanted: Wanted, host: Host, *, make: bool = True) -> Way:
        """How this VM starts: as a clone where that is wanted and can be, its template being made if need be.

        Without `make` a template that is not there is a reason to boot.
        Raises NotSupported, with the reason, when `start: clone` is said and it cannot, and what a boot
        raises when the template's VM does not become ready.
        """
        config = wanted.config
        if wanted.template is not None:
            return self._of(wanted.template, config, host)
        mode = self._mode(config)
        if mode == "boot":
            return Boot("start: boot" if config.start else "--maqet-start boot")
        try:
            return self._clone(wanted, host, mode, make=make)
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
        return config.start or self._settings.start

    def _of(self, template: Template, config: VmConfig, host: Host) -> Clone:
        """A clone of this template, with a configuration that differs from it at most outside of the machine."""
        if template_key(plan_for(config, host)) != template.base:
            raise ConfigError(
                f"a template of {template.name!r} is frozen as it is: what was changed belongs to its machine",
                hint="say the change in maqet.template(…) or in the YAML, and a template of its own is made",
            )
        try:
            return Clone(template.frozen, Lease.join(template.frozen.path / USE))
        except StartError:
            raise StartError(
                f"the template {template.frozen.path} is gone",
                hint="ask maqet.template(…) for it again, instead of keeping it from one run to another",
            ) from None

    def _distrust(self, way: Clone, error: MaqetError) -> None:
        """A clone did not come up: its template is taken out of use."""
        way.lease.close()
        manifest = way.frozen.manifest
        reason = error.message.splitlines()[0]
        self._ledger.note(f"a template of {manifest.vm} was thrown away, a clone did not come up: {reason}")
        TemplateStore(way.frozen.path.parent).remove(manifest.key)

    def _clone(self, wanted: Wanted, host: Host, mode: str, *, make: bool = True) -> Clone:
        plan = plan_for(wanted.config, host)
        reason = why_not(plan)
        if reason is not None:
            raise NoTemplate(reason)
        store = self._store(mode)
        wish = _Wish(wanted, host, plan, template_key(plan))
        found = None if make else self._found(store, wish)
        if not make and found is None:
            raise NoTemplate("there is no template yet")
        return Clone(*(found or self._obtain(store, wish, partial(self._boot_and_freeze, wish))))

    def _store(self, mode: str) -> TemplateStore:
        if self._settings.templates == "off":
            if mode != "clone":
                raise NoTemplate("--maqet-templates off")
            return self._own_store()
        if self._kept is None:
            try:
                self._kept = TemplateStore.kept()
            except StartError as error:
                self._ledger.note(f"no templates: {error.message}")
                raise NoTemplate(error.message) from None
        return self._kept

    def _own_store(self) -> TemplateStore:
        """For templates of this run only: they go with its directory."""
        folder = self._run.path / "templates"
        folder.mkdir(mode=0o700, exist_ok=True)
        return TemplateStore(folder)

    # -- finding and making --------------------------------------------------------------------------------

    def _obtain(
        self, store: TemplateStore, wish: _Wish, make: Callable[[Draft], Manifest]
    ) -> tuple[Frozen, Lease]:
        """The template of that key, made by `make` if there is none; raises NoTemplate where it cannot be."""
        refusal = store.refusal(wish.key)
        if refusal is not None:
            raise NoTemplate(refusal)
        found = self._found(store, wish)
        if found is not None:
            return found
        timeout = wish.config.timeouts.lock * wish.host.scale(wish.plan.accelerator)
        try:
            with store.lock(wish.key, timeout=timeout, vm=wish.config.name, owner=self._owner()):
                found = self._found(store, wish)
                if found is None:
                    found = self._make(store, wish, make)
                return found
        except LockTimeout as error:
            raise NoTemplate(error.message) from None
        except Unfreezable as error:
            store.refuse(wish.key, error.message)
            raise NoTemplate(error.message) from None

    def _found(self, store: TemplateStore, wish: _Wish) -> tuple[Frozen, Lease] | None:
        if self._settings.templates == "rebuild" and not self._rebuilt(wish.key).exists():
            return None
        try:
            return store.find(wish.key)
        except Damaged as error:
            self._ledger.note(f"{error.message}; it is made anew")
            store.remove(wish.key)
            return None

    def _make(
        self, store: TemplateStore, wish: _Wish, make: Callable[[Draft], Manifest]
    ) -> tuple[Frozen, Lease]:
        began = time.time()
        try:
            with store.draft(wish.key, wish.config.memory + ROOM) as draft:
                manifest = make(draft)
                frozen = store.publish(draft, manifest)
                lease = Lease.join(frozen.path / USE)
        except (StartError, QemuDied, OSError) as error:
            reason = _no_room(error)
            if reason is None:
                raise  # it is the VM's own
            self._ledger.note(f"no template of {wish.config.name}: {reason}")
            raise NoTemplate(reason) from None
        self._ledger.made_template(wish.config.name, wish.key, began)
        if self._settings.templates == "rebuild":
            marker = self._rebuilt(wish.key)
            marker.parent.mkdir(mode=0o700, exist_ok=True)
            marker.touch()
        for kept in store.evict(self._settings.templates_size):
            self._ledger.note(f"the template {kept.path.name[:12]} ({kept.size >> 20} MiB) made room")
        return frozen, lease

    def _rebuilt(self, key: str) -> Path:
        return self._run.path / "rebuilt" / key

    # -- how one is made -----------------------------------------------------------------------------------

    def _boot_and_freeze(self, wish: _Wish, draft: Draft) -> Manifest:
        began = time.monotonic()
        vm = self._launcher.mould(Mould(draft), wish.config, wish.host)
        try:
            access = access_of(vm, wish.patience)
            return _frozen(vm, draft, wish, access, time.monotonic() - began)
        finally:
            vm.close()

    def prepared(
        self,
        wanted: Wanted,
        host: Host,
        function: Callable[[VirtualMachine], object] | None,
        parts: tuple[object, ...],
    ) -> Template:
        """The template of a VM that `function` has prepared; made once while `parts` and its source hold.

        Raises NotSupported where the VM cannot be frozen, and what `function` raises.
        """
        plan = plan_for(wanted.config, host)
        base = template_key(plan)
        wish = _Wish(wanted, host, plan, prepared_key(base, function, parts))

        def make(draft: Draft) -> Manifest:
            began = time.monotonic()
            vm = self._launcher.launch(self._clone(wanted, host, "clone"), wanted.config, host)
            try:
                if function is not None:
                    function(vm)
                return self._copied(vm, draft, wish, time.monotonic() - began)
            finally:
                vm.close()

        try:
            frozen, lease = self._obtain(self._store("clone"), wish, make)
        except NoTemplate as error:
            raise NotSupported(f"there can be no template of {wanted.config.name}: {error}") from None
        return _template(wish, frozen, base, lease)

    def of_running(self, vm: VirtualMachine, wanted: Wanted) -> Template:
        """A template of a VM as it is now; it goes on, and the template goes with the run."""
        plan = plan_for(vm.config, vm.host)
        reason = why_not(plan)
        if reason is not None:
            raise NotSupported(f"{vm.name} cannot be frozen: {reason}")
        base = template_key(plan)
        moment = (time.time_ns(), os.getpid())
        wish = _Wish(replace(wanted, config=vm.config), vm.host, plan, prepared_key(base, None, moment))
        store = self._own_store()
        with store.draft(wish.key, 2 * vm.config.memory + ROOM) as draft:
            frozen = store.publish(draft, self._copied(vm, draft, wish, 0.0))
            lease = Lease.join(frozen.path / USE)
        return _template(wish, frozen, base, lease)

    def _copied(self, vm: VirtualMachine, draft: Draft, wish: _Wish, seconds: float) -> Manifest:
        """Freeze a copy of a running VM."""
        access = access_of(vm, wish.patience)
        loop = lease_loop()
        try:
            copy = VirtualMachine(wish.config, wish.host, copied_life(vm, loop, draft, wish.patience))
        finally:
            release_loop(loop)
        try:
            return _frozen(copy, draft, wish, access, seconds)
        finally:
            copy.close()


def _frozen(vm: VirtualMachine, draft: Draft, wish: _Wish, access: Access, seconds: float) -> Manifest:
    """Freeze a VM that lies in the draft."""
    return freeze(vm, draft, wish.patience, key=wish.key, plan=wish.plan, access=access, boot_seconds=seconds)


def _template(wish: _Wish, frozen: Frozen, base: str, lease: Lease) -> Template:
    return Template(wish.config.name, wish.key, wish.config, frozen, base, lease, wish.wanted.overrides)


def _no_room(error: Exception) -> str | None:
    """Why a template could not be written, where that is the disk's fault and the VM can boot all the same."""
    if isinstance(error, OSError):
        return f"it could not be written: {error.strerror}" if error.errno in _NO_ROOM else None
    if isinstance(error, QemuDied) and error.signal == signal.SIGBUS:
        return "the disk became full while it was made"
    text = str(error)
    if "MiB free" in text or any(os.strerror(number) in text for number in _NO_ROOM):
        return text.splitlines()[0]
    return None
