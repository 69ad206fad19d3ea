"""How a clone comes to life: a new QEMU that maps a template's memory and goes on where that was frozen."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from pytest_maqet.config import VmConfig
from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import QemuDied, StartError
from pytest_maqet.loop import LoopThread
from pytest_maqet.machine.host import Host
from pytest_maqet.machine.life import Life
from pytest_maqet.machine.migration import load_state
from pytest_maqet.machine.plan import plan_for
from pytest_maqet.machine.removal import remove_tree
from pytest_maqet.machine.starting import Launch
from pytest_maqet.machine.waking import PORT
from pytest_maqet.qemu.events import Mailbox
from pytest_maqet.qemu.inputs import Drive
from pytest_maqet.runs.leases import Lease
from pytest_maqet.runs.vm_directory import VmDirectory
from pytest_maqet.templates.manifest import Damaged
from pytest_maqet.templates.template import Frozen


def cloned_life(
    config: VmConfig,
    host: Host,
    loop: LoopThread,
    frozen: Frozen,
    lease: Lease,
    *,
    host_ports: Mapping[int, int],
    mailbox: Mailbox,
) -> Life:
    """A clone, loaded and paused: memory shared until it is written, fresh overlays on the frozen disks.

    `lease` keeps the template; QEMU holds it as long as it lives. Forwarded ports are free ones, but for
    those in `host_ports` (guest port → host port); events go into `mailbox`. Raises Damaged when the state is
    not what was saved, StartError when QEMU does not take it; nothing is left behind then.
    """
    plan = plan_for(config, host)
    state = _state(frozen)
    directory = host.run.new_vm_directory(config.name)

    async def go(life: Life, deadline: Deadline) -> None:
        life.expect_channel(frozen.manifest.channel)
        life.vitals.wake_listens = life.vitals.wake_seen = frozen.manifest.wake == PORT
        life.vitals.exec_listens = life.vitals.exec_seen = frozen.manifest.exec
        await life.reach()
        try:
            await load_state(life, [state], deadline)
        except (StartError, QemuDied) as error:
            raise Damaged(f"QEMU did not take the state in {frozen.path}: {error.message}") from None

    try:
        _copy_logs(frozen, directory)
        drives = tuple(_drives(frozen, directory))
        ram = plan.ram(frozen.ram, shared=False)
        launch = Launch(
            plan,
            host,
            directory,
            drives,
            mailbox,
            started_by="clone",
            ram=ram,
            incoming=True,
            host_ports=host_ports,
            inherited=(lease.fileno(),),
        )
        return launch.run(loop, go)
    except BaseException:
        remove_tree(directory.path)
        raise


def _state(frozen: Frozen) -> bytes:
    """The saved state. QEMU would load a half one without a word, so its digest is compared each time."""
    try:
        state = frozen.state.read_bytes()
    except OSError as error:
        raise Damaged(f"the template {frozen.path} has no readable state: {error.strerror}") from error
    if hashlib.sha256(state).hexdigest() != frozen.manifest.state_sha256:
        raise Damaged(f"the saved state in {frozen.path} was changed since it was made")
    return state


def _copy_logs(frozen: Frozen, directory: VmDirectory) -> None:
    for name, file in frozen.manifest.consoles.items():
        log = directory.serial_log(name)
        shutil.copyfile(frozen.path / file, log)
        log.chmod(0o600)


def _drives(frozen: Frozen, directory: VmDirectory) -> list[Drive]:
    made = []
    for drive in frozen.manifest.drives:
        overlay: Path | None = None
        if drive.fresh is not None:
            overlay = directory.disk(drive.name)
            shutil.copyfile(frozen.path / drive.fresh, overlay)
            overlay.chmod(0o600)
        made.append(drive.drive(overlay))
    return made
