"""Bringing one VM up for the manager: tells the listener, keeps evidence of a failure, cleans up after it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from pytest_maqet.config import VmConfig
from pytest_maqet.errors import MaqetError, StartError
from pytest_maqet.loop import lease_loop, release_loop
from pytest_maqet.machine import VirtualMachine
from pytest_maqet.machine.host import Host
from pytest_maqet.machine.removal import empty_tree
from pytest_maqet.machine.starting import joined_life, new_life
from pytest_maqet.management.usage import Usage
from pytest_maqet.runs.vm_directory import VmDirectory

#: How long the end of a VM that belongs to nobody any more may take, in seconds.
END_SECONDS = 2.0


class Listener(Protocol):
    """Who wants to know what happens to VMs; called one at a time, but from any thread."""

    def started(self, vm: VirtualMachine) -> None:
        """QEMU runs; the guest begins to boot."""

    def ready(self, vm: VirtualMachine) -> None:
        """The VM is ready."""

    def failed(self, vm: VirtualMachine | None, error: BaseException) -> None:
        """The VM did not become ready; there is no handle where not even QEMU started."""

    def stopping(self, vm: VirtualMachine) -> None:
        """The VM is about to be ended."""

    def progress(self, line: str) -> None:
        """Something takes a while: one line to show."""


class ManagedMachine(VirtualMachine):
    """A VM whose end its manager hears of, whoever closes it."""

    #: Whether it was closed.
    ended: bool = False
    #: Called once, before the VM ends; None where nobody wants to know.
    stopping: Callable[[VirtualMachine], None] | None = None

    def close(self) -> None:
        """End the VM; idempotent."""
        try:
            if not self.ended and self.stopping is not None:
                self.stopping(self)
        finally:
            self.ended = True
            super().close()


class HandStarted(ManagedMachine):
    """A VM that a test started by hand; a `with` block ends it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class Launcher:
    """Starts VMs and knows those that are not ready yet, so that all of them can be given up at once."""

    listener: Listener
    usage: Usage
    #: Title and text of what a VM that did not become ready had to show, until somebody reports it.
    evidence: list[tuple[str, str]] = field(default_factory=list)
    _starting: list[ManagedMachine] = field(default_factory=list)
    #: Counts `abandon`: a start that began before the last one must not go on.
    _epoch: int = 0
    _guard: threading.RLock = field(default_factory=threading.RLock)

    def launch(
        self, config: VmConfig, host: Host, kind: type[ManagedMachine] = ManagedMachine
    ) -> ManagedMachine:
        """Boot a VM and wait until it is ready; a `run`-scoped one outlives its handle.

        Raises StartError, WaitTimeout, GuestPanic or QemuDied; nothing but its evidence is left then.
        """
        vm: ManagedMachine | None = None
        epoch = self._epoch
        try:
            begun = vm = self._begin(config, host, kind)
            self._check(epoch, begun)
            begun.wait_ready()
            begun.set_mark()
            self._check(epoch, begun)
        except BaseException as error:
            self._give_up(vm, error)
            raise
        finally:
            with self._guard:
                self._starting = [other for other in self._starting if other is not vm]
        with self._guard:
            self.listener.ready(begun)
        if config.scope != "run":
            begun.stopping = self.listener.stopping
        return begun

    def relaunch(self, vm: ManagedMachine) -> None:
        """Put a fresh QEMU behind a handle; raises what `launch` raises."""
        try:
            end_for_all(vm)
            vm.relaunch()
            vm.set_mark()
        except BaseException as error:
            with self._guard:
                self.listener.failed(vm, error)
            raise
        with self._guard:
            self.listener.started(vm)
            self.listener.ready(vm)

    def join(self, directory: VmDirectory, config: VmConfig, host: Host) -> ManagedMachine:
        """A handle on a VM that another process started; raises StartError or QemuDied when it is gone."""
        loop = lease_loop()
        try:
            vm = ManagedMachine(config, host, joined_life(config, directory, loop), owned=False)
        finally:
            release_loop(loop)
        vm.set_mark()
        return vm

    def abandon(self) -> None:
        """End every QEMU that is not ready yet: the threads that wait for them end with that."""
        self._epoch += 1
        for vm in list(self._starting):
            with suppress(MaqetError, OSError):
                vm.life.process.kill()

    def _check(self, epoch: int, vm: ManagedMachine) -> None:
        if epoch != self._epoch:
            raise StartError(f"the start of {vm.name} was interrupted")

    def _begin(self, config: VmConfig, host: Host, kind: type[ManagedMachine]) -> ManagedMachine:
        loop = lease_loop()
        try:
            vm = kind(config, host, new_life(config, host, loop), owned=config.scope != "run")
        finally:
            release_loop(loop)
        with self._guard:
            self._starting.append(vm)
        self.usage.begin(config.name, vm.life.directory)
        with self._guard:
            self.listener.started(vm)
        return vm

    def _give_up(self, vm: VirtualMachine | None, error: BaseException) -> None:
        """Keep the evidence, tell the listener, end what there is."""
        try:
            with self._guard:
                if vm is not None and isinstance(error, Exception):
                    self._keep_evidence(vm)
                self.listener.failed(vm, error)
        finally:
            if vm is not None:
                end_for_all(vm)
                vm.close()

    def _keep_evidence(self, vm: VirtualMachine) -> None:
        with suppress(MaqetError, OSError):
            self.evidence.extend(vm.report_sections())
            vm.save_artifacts(vm.artifacts_folder.parent)


def end_for_all(vm: VirtualMachine) -> None:
    """End a `run`-scoped VM's QEMU, whoever uses it; other VMs are left to their handle.

    Its directory stays, empty: other workers tell by its name whether theirs is the QEMU of now.
    """
    if vm.config.scope != "run":
        return
    directory = vm.life.directory
    vm.life.vitals.end_wanted = vm.life.vitals.end_wanted or "the VM was torn down"
    with suppress(MaqetError, OSError):
        vm.life.process.dismiss(END_SECONDS)
    empty_tree(directory.path)


def rejoin(vm: VirtualMachine, directory: VmDirectory) -> None:
    """Turn the handle of a `run`-scoped VM to another QEMU that took the place of a dead one."""
    loop = lease_loop()
    try:
        old = vm.life
        vm.on_loop(old.disconnect())
        old.process.close()
        vm.life = joined_life(vm.config, directory, loop)
    finally:
        release_loop(loop)
    vm.set_mark()
