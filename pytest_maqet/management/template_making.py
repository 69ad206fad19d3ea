"""Templates of one process of a run: found where they are kept, made where they are missing.

One process makes a template, under that template's lock; all others that want it wait for that one only.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from pytest_maqet.errors import (
    DiskError,
    GuestPanic,
    LockTimeout,
    NotSupported,
    QemuDied,
    StartError,
    WaitTimeout,
)
from pytest_maqet.loop import lease_loop, release_loop
from pytest_maqet.machine import VirtualMachine
from pytest_maqet.machine.freezing import access_of, copied_life
from pytest_maqet.machine.host import Host
from pytest_maqet.machine.migration import Lifeless, Unfreezable
from pytest_maqet.machine.plan import plan_for
from pytest_maqet.machine.preparing import StepFailed
from pytest_maqet.machine.template_key import template_key, why_not
from pytest_maqet.management.attempts import Attempts
from pytest_maqet.management.means import Means
from pytest_maqet.management.template_reasons import NoTemplate, OfSuite, no_room
from pytest_maqet.management.ways import Clone, Mould, clone_of, refuse_other_machine
from pytest_maqet.management.wishes import TemplateWish, Wanted
from pytest_maqet.runs.leases import Lease
from pytest_maqet.runs.run_directory import RunDirectory
from pytest_maqet.templates.folders import USE
from pytest_maqet.templates.identity import prepared_key
from pytest_maqet.templates.manifest import Damaged, Manifest
from pytest_maqet.templates.store import Draft, TemplateStore
from pytest_maqet.templates.template import Frozen, Template

#: What a template takes beside the guest's memory: device state, disks, logs. Bytes.
ROOM = 64 << 20


class Templates:
    """Finds and makes templates."""

    def __init__(
        self,
        means: Means,
        run: RunDirectory,
        attempts: Attempts,
        owner: Callable[[], str],
    ) -> None:
        self._means = means
        self._run = run
        self._attempts = attempts
        self._owner = owner
        self._kept: TemplateStore | None = None

    def of(self, wanted: Wanted, host: Host, *, lasting: bool) -> tuple[Frozen, Lease]:
        """The template of a VM, made if there is none.

        `lasting` where it must be had even if none may be kept from run to run. Raises NoTemplate with the
        reason why there is none, and what a boot raises when the VM does not become ready.
        """
        wish = self._wish(wanted, host)
        return self._obtain(self._store(lasting=lasting), wish, partial(self._boot_and_freeze, wish))

    def there(self, wanted: Wanted, host: Host, *, lasting: bool) -> tuple[Frozen, Lease]:
        """As `of`, but one that is not there is not made."""
        wish = self._wish(wanted, host)
        found = self._found(self._store(lasting=lasting), wish)
        if found is None:
            raise NoTemplate("there is no template yet")
        return found

    def _wish(self, wanted: Wanted, host: Host) -> TemplateWish:
        if wanted.config.scope == "run":  # what a template is made in belongs to its maker alone
            wanted = replace(wanted, config=wanted.config.scoped("session"))
            host = replace(self._means.host_of(wanted), room=host.room)
        plan = plan_for(wanted.config, host)
        reason = why_not(plan)
        if reason is not None:
            raise NoTemplate(reason)
        key = template_key(plan)
        return TemplateWish(wanted, host, plan, key, key)

    def _store(self, *, lasting: bool) -> TemplateStore:
        if self._means.settings.templates == "off":
            if not lasting:
                raise NoTemplate("--maqet-templates off")
            return self._own_store()
        if self._kept is None:
            try:
                self._kept = TemplateStore.kept()
            except StartError as error:
                self._means.ledger.note(f"no templates: {error.message}")
                raise NoTemplate(error.message) from None
            self._kept.remove_unlinked()  # what runs that were killed left half made
        return self._kept

    def _own_store(self) -> TemplateStore:
        """For templates of this run only: they go with its directory."""
        folder = self._run.path / "templates"
        folder.mkdir(mode=0o700, exist_ok=True)
        return TemplateStore(folder)

    # -- finding and making --------------------------------------------------------------------------------

    def _obtain(
        self, store: TemplateStore, wish: TemplateWish, make: Callable[[Draft], Manifest], *, copies: int = 1
    ) -> tuple[Frozen, Lease]:
        """The template of that key, made by `make` if there is none; raises NoTemplate where it cannot be.

        Its maker needs disk for `copies` of the guest's memory.
        """
        refusal = store.refusal(wish.key)
        if refusal is not None and self._means.settings.templates != "rebuild":
            raise NoTemplate(refusal)
        timeout = wish.config.timeouts.lock * wish.host.scale(wish.plan.accelerator)
        try:
            found = self._found(store, wish)
            if found is not None:
                return found
            wish.host.room.reserve()  # before the lock, which others wait for
            with store.lock(wish.key, timeout=timeout, vm=wish.config.name, owner=self._owner()):
                found = self._found(store, wish)
                if found is None:
                    found = self._make(store, wish, make, copies)
                return found
        except (LockTimeout, Lifeless) as error:
            raise NoTemplate(error.message, hint=error.hint) from None
        except Unfreezable as error:
            store.refuse(wish.key, error.message)
            raise NoTemplate(error.message) from None
        except StepFailed:
            raise
        except NotSupported as error:  # here and now: a path that QMP cannot tell
            raise NoTemplate(error.message, hint=error.hint) from None
        except (StartError, QemuDied, DiskError, OSError) as error:
            reason = no_room(error)
            if reason is None:
                raise  # it is the VM's own
            self._means.ledger.note(f"no template of {wish.config.name}: {reason}")
            raise NoTemplate(reason) from None

    def _found(self, store: TemplateStore, wish: TemplateWish) -> tuple[Frozen, Lease] | None:
        if self._means.settings.templates == "rebuild" and not self._rebuilt(wish.key).exists():
            return None
        try:
            return store.find(wish.key)
        except Damaged as error:
            self._means.ledger.note(f"{error.message}; it is made anew")
            store.remove(wish.key)
            return None

    def _make(
        self, store: TemplateStore, wish: TemplateWish, make: Callable[[Draft], Manifest], copies: int
    ) -> tuple[Frozen, Lease]:
        self._attempts.check(wish.wanted)  # those that waited for one that failed do not try it again
        began = time.time()
        with store.draft(wish.key, copies * wish.config.memory + ROOM) as draft:
            try:
                manifest = make(draft)
            except (StepFailed, WaitTimeout, GuestPanic) as error:
                self._attempts.remember(wish.wanted, error)
                raise
            frozen = store.publish(draft, manifest)
            lease = Lease.join(frozen.path / USE)
        name = wish.config.name
        if template_key(wish.plan) != wish.base:  # nobody knows which of both it is made of
            store.remove(wish.key, frozen.path)
            self._means.ledger.note(
                f"a template of {name} is not kept: files that it is made of changed meanwhile"
            )
        self._means.ledger.made_template(name, wish.key, began)
        if self._means.settings.templates == "rebuild":
            marker = self._rebuilt(wish.key)
            marker.parent.mkdir(mode=0o700, exist_ok=True)
            marker.touch(mode=0o600)
        for kept in store.evict(self._means.settings.templates_size):
            self._means.ledger.note(f"the template {kept.path.name[:12]} ({kept.size >> 20} MiB) made room")
        return frozen, lease

    def _rebuilt(self, key: str) -> Path:
        return self._run.path / "rebuilt" / key

    # -- how one is made -----------------------------------------------------------------------------------

    def _boot_and_freeze(self, wish: TemplateWish, draft: Draft) -> Manifest:
        began = time.monotonic()
        vm = self._means.launcher.mould(Mould(draft), wish.config, wish.host)
        try:
            access = access_of(vm, wish.patience)
            return wish.freeze(vm, draft, access, time.monotonic() - began)
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
        try:
            # Two run at a time: the VM that is prepared, and its copy.
            with self._means.rooms.of(wanted, times=2) as room:
                machine = self._wish(wanted, replace(host, room=room))
                stem, store = machine.key, self._store(lasting=True)
                if wanted.template is not None:
                    refuse_other_machine(wanted.template, machine.key)
                    stem = wanted.template.key
                    if wanted.template.frozen.path.parent == self._own_store().folder:
                        store = self._own_store()  # what is made of it cannot be asked for in another run
                wish = replace(machine, key=prepared_key(stem, function, parts))
                make = partial(self._clone_and_freeze, wish, function)
                frozen, lease = self._obtain(store, wish, make, copies=2)
        except NoTemplate as error:
            reason = f"there can be no template of {wanted.config.name}: {error}"
            raise NotSupported(reason, hint=error.hint) from None
        except OfSuite as error:
            raise error.error from None
        return replace(wish, wanted=wanted).template(frozen, lease)

    def _clone_and_freeze(
        self, wish: TemplateWish, function: Callable[[VirtualMachine], object] | None, draft: Draft
    ) -> Manifest:
        began = time.monotonic()
        of = wish.wanted.template
        clone = (
            clone_of(of, wish.config, wish.host)
            if of
            else Clone(*self.of(wish.wanted, wish.host, lasting=True))
        )
        vm = self._means.launcher.launch(clone, wish.config, wish.host)
        try:
            if function is not None:
                try:
                    function(vm)
                except Exception as error:
                    raise OfSuite(error) from error
                wish.refuse_changed(vm.config)
            return self._copied(vm, draft, wish, time.monotonic() - began)
        finally:
            vm.close()

    def of_running(self, vm: VirtualMachine, wanted: Wanted) -> Template:
        """A template of a VM as it is now; it goes on, and the template goes with the run."""
        plan = plan_for(vm.config, vm.host)
        reason = why_not(plan)
        if reason is not None:
            raise NotSupported(f"{vm.name} cannot be frozen: {reason}")
        base = template_key(plan)
        moment = (time.time_ns(), os.getpid())
        wanted = replace(wanted, config=vm.config, shared=False)
        key, store = prepared_key(base, None, moment), self._own_store()
        with self._means.rooms.of(wanted) as room:  # for the copy that is frozen
            room.reserve()
            wish = TemplateWish(wanted, replace(vm.host, room=room), plan, key, base)
            with store.draft(key, 2 * vm.config.memory + ROOM) as draft:
                frozen = store.publish(draft, self._copied(vm, draft, wish, 0.0))
                lease = Lease.join(frozen.path / USE)
        template = wish.template(frozen, lease)
        weakref.finalize(template, store.remove, wish.key)  # nobody else can ask for it
        return template

    def _copied(self, vm: VirtualMachine, draft: Draft, wish: TemplateWish, seconds: float) -> Manifest:
        """Freeze a copy of a running VM."""
        access = access_of(vm, wish.patience)
        loop = lease_loop()
        try:
            life = copied_life(vm, wish.host, loop, draft, wish.patience)
            copy = VirtualMachine(wish.config, wish.host, life)
        finally:
            release_loop(loop)
        try:
            return wish.freeze(copy, draft, access, seconds)
        finally:
            copy.close()
