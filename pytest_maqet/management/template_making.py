"""Templates of one process of a run: found where they are kept, made where they are missing.

One process makes a template, under that template's lock; all others that want it wait for that one only.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_maqet.config import VmConfig
from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import LockTimeout, NotSupported, QemuDied, StartError
from pytest_maqet.loop import lease_loop, release_loop
from pytest_maqet.machine import VirtualMachine
from pytest_maqet.machine.freezing import Access, access_of, copied_life, freeze
from pytest_maqet.machine.host import Host
from pytest_maqet.machine.migration import Unfreezable
from pytest_maqet.machine.plan import Plan, plan_for
from pytest_maqet.machine.template_key import template_key, why_not
from pytest_maqet.management.records import Ledger
from pytest_maqet.management.ways import Clone, Mould
from pytest_maqet.runs.leases import Lease
from pytest_maqet.runs.run_directory import RunDirectory
from pytest_maqet.settings import Settings
from pytest_maqet.templates.identity import prepared_key
from pytest_maqet.templates.manifest import Damaged, Manifest
from pytest_maqet.templates.store import USE, Draft, TemplateStore
from pytest_maqet.templates.template import Frozen, Template

if TYPE_CHECKING:
    from pytest_maqet.management.launch import Launcher
    from pytest_maqet.management.wishes import Wanted

#: What a template takes beside the guest's memory: device state, disks, logs. Bytes.
ROOM = 64 << 20
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
    """Finds and makes templates."""

    def __init__(
        self,
        settings: Settings,
        run: RunDirectory,
        launcher: Launcher,
        ledger: Ledger,
        owner: Callable[[], str],
    ) -> None:
        self._settings = settings
        self._run = run
        self._launcher = launcher
        self._ledger = ledger
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

    def _wish(self, wanted: Wanted, host: Host) -> _Wish:
        plan = plan_for(wanted.config, host)
        reason = why_not(plan)
        if reason is not None:
            raise NoTemplate(reason)
        return _Wish(wanted, host, plan, template_key(plan))

    def _store(self, *, lasting: bool) -> TemplateStore:
        if self._settings.templates == "off":
            if not lasting:
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
        timeout = wish.config.timeouts.lock * wish.host.scale(wish.plan.accelerator)
        try:
            found = self._found(store, wish)
            if found is not None:
                return found
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
        except (StartError, QemuDied, OSError) as error:
            reason = _no_room(error)
            if reason is None:
                raise  # it is the VM's own
            self._ledger.note(f"no template of {wish.config.name}: {reason}")
            raise NoTemplate(reason) from None

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
        with store.draft(wish.key, wish.config.memory + ROOM) as draft:
            frozen = store.publish(draft, make(draft))
            lease = Lease.join(frozen.path / USE)
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
            clone = Clone(*self.of(wanted, host, lasting=True))
            vm = self._launcher.launch(clone, wanted.config, host)
            try:
                if function is not None:
                    function(vm)
                return self._copied(vm, draft, wish, time.monotonic() - began)
            finally:
                vm.close()

        try:
            frozen, lease = self._obtain(self._store(lasting=True), wish, make)
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
    """Why a template could not be written, where that is the disk's fault and the VM can boot instead."""
    if isinstance(error, OSError):
        return f"it could not be written: {error.strerror}" if error.errno in _NO_ROOM else None
    if isinstance(error, QemuDied) and error.signal == signal.SIGBUS:
        return "the disk became full while it was made"
    text = str(error)
    if "MiB free" in text or any(os.strerror(number) in text for number in _NO_ROOM):
        return text.splitlines()[0]
    return None
