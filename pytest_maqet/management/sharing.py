"""VMs of `scope: run`: one for all workers of a run on one host.

A worker that wants one takes the VM's start lock, looks whether another worker has published it, and joins
it, or starts and publishes it. The lock is held for that only, never while a test runs. Nobody counts users:
the VM lives until the run is over.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pytest_maqet.config import Config, VmConfig
from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import MaqetError
from pytest_maqet.loop import lease_loop, release_loop
from pytest_maqet.machine import VirtualMachine, power
from pytest_maqet.machine.host import Host
from pytest_maqet.machine.starting import joined_life
from pytest_maqet.management.launch import rejoin
from pytest_maqet.management.managed_machine import ManagedMachine
from pytest_maqet.management.records import StartRecord
from pytest_maqet.management.usage import is_blamed
from pytest_maqet.qemu.accelerator import choose
from pytest_maqet.qemu.binary import find_binary
from pytest_maqet.qemu.capabilities import capabilities
from pytest_maqet.runs.bounded_log import last_bytes
from pytest_maqet.runs.exit_status import read_exit
from pytest_maqet.runs.locks import held_lock
from pytest_maqet.runs.private_files import write_private
from pytest_maqet.runs.process import QemuProcess
from pytest_maqet.runs.run_directory import RunDirectory
from pytest_maqet.runs.vm_directory import VmDirectory

#: How long the end of a run waits for one VM's keeper, in seconds.
DISMISSAL_SECONDS = 5.0

#: How many bytes of QEMU's stderr are looked at when it has crashed.
_LAST_WORDS = 4096

_PUBLISHED = "shared"


def start_lock_timeout(config: VmConfig, host: Host) -> float:
    """Seconds to wait for a start lock; scaled as the start is that its holder may be at."""
    try:
        binary = find_binary(config)
        accel = choose(binary, capabilities(binary), config.accel or host.accel).name
    except MaqetError:
        accel = "tcg"  # the start is going to say what is wrong
    return config.timeouts.lock * host.scale(accel)


class SharedVms:
    """The `run`-scoped VMs of a run, as this process sees them."""

    def __init__(
        self, run: RunDirectory, owner: Callable[[], str], lost: Callable[[VmConfig, VmDirectory, str], None]
    ) -> None:
        """`lost` is told of each VM that must be replaced, and why, before its directory goes."""
        self._run = run
        self._owner = owner
        self._lost = lost

    def obtain(
        self,
        config: VmConfig,
        record: StartRecord,
        lock_timeout: float,
        launch: Callable[[], ManagedMachine],
        join: Callable[[VmDirectory], ManagedMachine],
    ) -> ManagedMachine:
        """Join the VM if it runs, else launch and publish it.

        Raises LockTimeout naming the holder when another worker's start takes longer than `lock_timeout`
        seconds, else what `launch` raises.
        """
        with self._start_lock(config, record, lock_timeout):
            running = self._published(config)
            if running is not None:
                try:
                    vm = join(running)
                except MaqetError as error:
                    record.how = "replace"
                    self._lost(config, running, str(error).splitlines()[0])
                    self._entry(config).unlink(missing_ok=True)
                else:
                    record.how = "join"
                    return vm
            vm = launch()
            self.publish(config, vm)
            return vm

    def replace(
        self,
        config: VmConfig,
        vm: VirtualMachine,
        reason: str,
        record: StartRecord,
        lock_timeout: float,
        relaunch: Callable[[], None],
    ) -> None:
        """Put a fresh QEMU behind the handle of a VM that was left unusable, for this reason.

        Another worker may have done it already: then the handle turns to that one.
        """
        with self._start_lock(config, record, lock_timeout):
            running = self._published(config)
            if running is not None and running.path != vm.workdir:
                rejoin(vm, running)
                record.how = "join"
                return
            self._lost(config, vm.life.directory, reason)
            relaunch()
            self.publish(config, vm)

    @contextmanager
    def _start_lock(self, config: VmConfig, record: StartRecord, timeout: float) -> Iterator[None]:
        path = self._run.lock_path(f"vm-{config.name}-{config.key[:12]}")
        what = f"the start of the run-scoped VM {config.name!r}"
        try:
            with held_lock(path, timeout=timeout, what=what, owner=self._owner()):
                record.lock_acquired = time.time()
                yield
        finally:
            if record.lock_acquired is not None:
                record.lock_released = time.time()

    def _entry(self, config: VmConfig) -> Path:
        return self._run.path / _PUBLISHED / f"{config.name}-{config.key[:12]}.json"

    def is_there(self, config: VmConfig) -> bool:
        """Whether some worker has published it; it may have died since."""
        return self._entry(config).exists()

    def _published(self, config: VmConfig) -> VmDirectory | None:
        try:
            entry = json.loads(self._entry(config).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return VmDirectory(Path(entry["directory"]))

    def publish(self, config: VmConfig, vm: VirtualMachine) -> None:
        """Let other workers find this VM as the one of that configuration."""
        entry = self._entry(config)
        entry.parent.mkdir(mode=0o700, exist_ok=True)
        draft = entry.with_suffix(f".{os.getpid()}")
        record = {"directory": str(vm.workdir), "vm": config.name, "teardown": config.teardown}
        write_private(draft, json.dumps(record))
        draft.replace(entry)


def end_shared_vms(run: RunDirectory, config: Config, *, in_haste: bool = False) -> list[str]:
    """End every `run`-scoped VM of a run: its last user is gone. Never raises, and is bounded in time.

    `in_haste` none is asked to shut down first. Returns what is to be told of those that have crashed, unless
    a test has been blamed for it already.
    """
    crashes = []
    for path in sorted((run.path / _PUBLISHED).glob("*.json")):
        entry = json.loads(path.read_text(encoding="utf-8"))
        directory = VmDirectory(Path(entry["directory"]))
        with suppress(MaqetError, OSError, TimeoutError):
            if entry["teardown"] == "stop" and entry["vm"] in config.vms and not in_haste:
                _stop(config.vms[entry["vm"]], directory)
        with suppress(MaqetError, OSError):  # else it has ended by itself
            process = QemuProcess.attach(directory)
            try:
                process.dismiss(DISMISSAL_SECONDS)
            finally:
                process.close()
        if (ended := read_exit(directory)) and ended.crashed and not is_blamed(directory):
            crashes.append(f"{entry['vm']}: QEMU died: {ended.reason}{_last_words(directory)}")
        path.unlink(missing_ok=True)
    return crashes


def _last_words(directory: VmDirectory) -> str:
    """The end of QEMU's stderr on one line, to follow how it ended."""
    with suppress(OSError):
        said = last_bytes(directory.stderr_log, _LAST_WORDS).decode(errors="replace").splitlines()
        return f"; found at the end of the run; its stderr: {' | '.join(said[-3:]) or '(nothing)'}"
    return "; found at the end of the run"


def _stop(config: VmConfig, directory: VmDirectory) -> None:
    """Ask the guest to shut down, and give it the time that `timeouts: stop` says."""
    loop = lease_loop()
    try:
        life = joined_life(config, directory, loop)
        try:
            loop.run(power.stop(life, Deadline.after(config.timeouts.stop)))
        finally:
            loop.run(life.disconnect())
            life.process.close()
    finally:
        release_loop(loop)
