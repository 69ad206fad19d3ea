"""Bringing one VM up for the manager: tells the listener, keeps evidence of a failure, cleans up after it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from pytest_maqet.config import VmConfig
from pytest_maqet.errors import MaqetError, NotSupported, StartError
from pytest_maqet.loop import lease_loop, release_loop
from pytest_maqet.machine import VirtualMachine
from pytest_maqet.machine.host import Host
from pytest_maqet.machine.removal import empty_tree
from pytest_maqet.machine.starting import joined_life
from pytest_maqet.machine.waking import go_on
from pytest_maqet.management.usage import Usage
from pytest_maqet.management.ways import Way
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
            if not self.ended and self.stopping is not None and not self.forked:
                self.stopping(self)
        finally:
            self.ended = True
            super().close()

    def stand_still(self) -> None:
        """Stop the guest, which is ready, until a test takes it; the connections rest."""
        deadline = self.deadline(None, self.config.timeouts.qmp)
        self.on_loop(self.life.execute("stop", None, deadline))
        self.rest()

    def take_up(self, artifacts: Path) -> None:
        """Let a guest that stood still go on, with its clock put right; for a test that keeps things there.

        Raises what `Life.execute` raises, and QemuDied where it is dead.
        """
        self.wake()
        self.artifacts_folder = artifacts / self.config.name
        assert self.life.frozen is not None
        way = self.life.frozen.manifest.wake
        self.on_loop(go_on(self.life, way, self.deadline(None, self.config.timeouts.command)))

    def discard(self) -> None:
        """End a VM that no test has had: nobody is told."""
        self.stopping = None
        self.wake()
        self.close()


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
        self,
        way: Way,
        config: VmConfig,
        host: Host,
        kind: type[ManagedMachine] = ManagedMachine,
        *,
        excused: tuple[type[MaqetError], ...] = (),
    ) -> ManagedMachine:
        """Bring a VM up until it is ready; a `run`-scoped one outlives its handle.

        Raises StartError, WaitTimeout, GuestPanic or QemuDied; nothing but its evidence is left then. Nobody
        is told of a failure that is `excused`: there is another way.
        """
        vm: ManagedMachine | None = None
        epoch = self._epoch
        try:
            begun = vm = self._begin(way, config, host, kind)
            self._check(epoch, begun)
            way.finish(begun)
            begun.set_mark()
            self._check(epoch, begun)
        except BaseException as error:
            self._give_up(vm, error, tell=not isinstance(error, excused))
            raise
        finally:
            with self._guard:
                self._starting = [other for other in self._starting if other is not vm]
        with self._guard:
            self.listener.ready(begun)
        if config.scope != "run":
            begun.stopping = self.listener.stopping
        return begun

    def spare(
        self, way: Way, config: VmConfig, host: Host, begun: Callable[[ManagedMachine], None]
    ) -> ManagedMachine:
        """Bring up a VM that no test has asked for yet, and let it stand still; raises as `launch`."""
        vm = _machine(way, config, host, ManagedMachine)
        try:
            begun(vm)
            way.finish(vm)
            if vm.life.picked_channel is not None:
                # What a command needs in the guest is then translated by QEMU, and paged in.
                vm.run("true")
            vm.stand_still()
        except BaseException:
            vm.close()
            raise
        return vm

    def hand_over(self, vm: ManagedMachine, artifacts: Path) -> None:
        """Give a spare to a test; raises what `ManagedMachine.take_up` raises, and ends it then."""
        try:
            vm.take_up(artifacts)
            vm.set_mark()
        except BaseException:
            vm.discard()
            raise
        self.usage.begin(vm.name, vm.life.directory)
        with self._guard:
            self.listener.started(vm)
            self.listener.ready(vm)
        vm.stopping = self.listener.stopping

    def mould(self, way: Way, config: VmConfig, host: Host) -> ManagedMachine:
        """Bring up a VM that is going to be a template: of it nobody hears but when it fails."""
        vm: ManagedMachine | None = None
        epoch = self._epoch
        try:
            begun = vm = _machine(way, config, host, ManagedMachine)
            with self._guard:
                self._starting.append(begun)
            self._check(epoch, begun)
            self.usage.begin(config.name, begun.life.directory)
            way.finish(begun)
        except BaseException as error:
            tell = not isinstance(error, NotSupported)
            if tell and vm is not None:
                self.listener.started(vm)  # who hears of a failure has heard of the start
            self._give_up(vm, error, tell=tell)
            raise
        finally:
            with self._guard:
                self._starting = [other for other in self._starting if other is not vm]
        return begun

    def relaunch(self, way: Way, vm: ManagedMachine) -> None:
        """Put a fresh QEMU behind a handle; raises what `launch` raises."""
        try:
            end_for_all(vm)
            vm.relaunch(partial(way.life, vm.config, vm.host))
            way.finish(vm)
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

    def _begin(self, way: Way, config: VmConfig, host: Host, kind: type[ManagedMachine]) -> ManagedMachine:
        vm = _machine(way, config, host, kind)
        with self._guard:
            self._starting.append(vm)
        self.usage.begin(config.name, vm.life.directory)
        with self._guard:
            self.listener.started(vm)
        return vm

    def _give_up(self, vm: VirtualMachine | None, error: BaseException, *, tell: bool) -> None:
        """Keep the evidence and tell the listener, where that is wanted; end what there is."""
        try:
            if tell:
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


def _machine(way: Way, config: VmConfig, host: Host, kind: type[ManagedMachine]) -> ManagedMachine:
    """A handle on the QEMU that `way` starts."""
    loop = lease_loop()
    try:
        return kind(config, host, way.life(config, host, loop), owned=config.scope != "run")
    finally:
        release_loop(loop)


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
