"""How a VM becomes a template: booted with its memory in a file that all clones map, and frozen in place.

A VM whose memory is its own is first copied, memory and all, into another QEMU that has it in such a file.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_maqet.config import VmConfig
from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import MaqetError
from pytest_maqet.guest.commands import CommandRequest
from pytest_maqet.loop import LoopThread
from pytest_maqet.machine.channel_search import search_channel
from pytest_maqet.machine.drives import make_drives
from pytest_maqet.machine.host import Host
from pytest_maqet.machine.life import Life
from pytest_maqet.machine.migration import Unfreezable, blockers, load_state, refuse_lifeless, save_state
from pytest_maqet.machine.plan import Plan, plan_for
from pytest_maqet.machine.removal import remove_tree
from pytest_maqet.machine.starting import Launch, cont
from pytest_maqet.machine.waking import settle, way_to_wake
from pytest_maqet.qemu.inputs import Drive
from pytest_maqet.runs.bounded_log import copy_log
from pytest_maqet.runs.vm_directory import VmDirectory
from pytest_maqet.storage.images import backing_chain, probe_image
from pytest_maqet.storage.overlays import copy_overlay, create_overlay, rebase
from pytest_maqet.templates.folders import USE
from pytest_maqet.templates.identity import sources_of
from pytest_maqet.templates.manifest import FORM, RAM, STATE, FileState, FrozenDrive, Manifest
from pytest_maqet.templates.store import Draft

if TYPE_CHECKING:
    from pytest_maqet.machine.core import MachineCore

#: How long the guest is asked for a channel before it is frozen, in seconds.
CHANNEL_SECONDS = 5.0
#: A guest is left alone for this long before it is frozen, in seconds: what its kernel puts off until later
#: after a process has ended (Linux: RCU callbacks) is then not done again in each clone.
TIDY_SECONDS = 0.3
_PIECE = 1 << 20
_WHOLE_STATE = "whole.state"


@dataclass(frozen=True)
class Access:
    """How a guest was reached before it was frozen: the channel of its commands, how it can be woken, and
    whether maqet-exec listens in it.
    """

    channel: str | None
    wake: str
    exec: bool


def access_of(vm: MachineCore, deadline: Deadline) -> Access:
    """How a guest that is about to be frozen is reached; a channel is looked for where none was needed.

    Raises Lifeless for one that has panicked or powered off.
    """
    life = vm.life
    deadline = deadline.within(CHANNEL_SECONDS * deadline.scale)
    if vm.on_loop(refuse_lifeless(life, deadline)) != "running":
        # Nobody in it would answer.
        return Access(life.picked_channel, vm.on_loop(way_to_wake(life)), life.vitals.exec_listens)
    search_channel(vm, deadline)
    if life.picked_channel is not None:
        # Once, so that in each clone what runs a command is in memory, linked and looked up already.
        with suppress(MaqetError):
            vm.on_loop(life.run(CommandRequest("true"), deadline))
    wake = vm.on_loop(way_to_wake(life))
    with suppress(MaqetError):
        vm.on_loop(settle(life, wake, deadline))
    vm.on_loop(asyncio.sleep(TIDY_SECONDS))
    return Access(life.picked_channel, wake, vm.on_loop(life.agent_port.exec_listens()))


def template_life(config: VmConfig, host: Host, loop: LoopThread, draft: Draft) -> Life:
    """Boot a VM that is going to be frozen: memory and disks in the draft's folder, no ports of the host.

    Raises Unfreezable, before the guest has run, where QEMU knows that it could not save this machine; else
    as `new_life`.
    """
    plan = plan_for(config, host)
    directory = host.run.new_vm_directory(config.name)

    async def go(life: Life, deadline: Deadline) -> None:
        reason = await blockers(life, deadline)
        if reason is not None:
            raise Unfreezable(reason)
        await _refuse_foreign_disks(life, deadline)
        await cont(life, deadline)

    try:
        drives = make_drives(config, plan.guest, VmDirectory(draft.path), fresh=True, report=host.report)
        ram = plan.ram(_memory_file(draft, config), shared=True)
        return Launch(plan, host, directory, drives, ram=ram, forwards=False).run(loop, go)
    except BaseException:
        remove_tree(directory.path)
        raise


def copied_life(vm: MachineCore, host: Host, loop: LoopThread, draft: Draft, deadline: Deadline) -> Life:
    """Another QEMU with a copy of a running VM's memory and disks, paused, both in the draft's folder.

    The VM is stopped for that, and goes on afterwards where it ran. Raises Unfreezable with QEMU's reason,
    Lifeless for a guest that has come to its end.
    """
    life, config = vm.life, vm.config
    plan = plan_for(config, host)
    state = draft.path / _WHOLE_STATE
    state_before = loop.run(refuse_lifeless(life, deadline))
    try:
        loop.run(_save_whole(life, state, deadline))
        drives = tuple(_copied(drive, life.directory, draft) for drive in life.drives)
    finally:
        # QEMU has let go of the disks for whoever takes the state; only `cont` takes them back.
        loop.run(life.execute("cont", None, deadline))
        if state_before != "running":
            loop.run(life.execute("stop", None, deadline))
    directory = host.run.new_vm_directory(config.name)
    _copy_logs(life.directory, directory, config)

    async def go(copy: Life, within: Deadline) -> None:
        await copy.reach()
        await load_state(copy, _pieces(state), within, with_memory=True)

    try:
        ram = plan.ram(_memory_file(draft, config), shared=True)
        return Launch(plan, host, directory, drives, ram=ram, incoming=True, forwards=False).run(loop, go)
    except BaseException:
        remove_tree(directory.path)
        raise
    finally:
        state.unlink(missing_ok=True)


def freeze(
    vm: MachineCore, draft: Draft, deadline: Deadline, *, key: str, plan: Plan, access: Access, **facts: float
) -> Manifest:
    """Freeze a VM whose memory and disks are the draft's; its QEMU ends. Returns the manifest to publish.

    `facts` are the manifest's `boot_seconds`. Raises Unfreezable with QEMU's reason.
    """
    life = vm.life
    vm.on_loop(refuse_lifeless(life, deadline))
    state = draft.path / STATE
    digest = vm.on_loop(_save_devices(life, state, deadline))
    life.vitals.end_wanted = "frozen as a template"
    vm.on_loop(life.quit(deadline))
    life.process.dismiss(2.0)
    consoles = _kept_logs(life.directory, draft, life.config)
    drives = tuple(_frozen(drive, draft) for drive in life.drives)
    for name in [STATE, *(drive.disk for drive in drives if drive.disk)]:
        (draft.path / name).chmod(0o400)
    names = [
        RAM,
        *consoles.values(),
        *(name for drive in drives for name in (drive.disk, drive.fresh) if name),
    ]
    return Manifest(
        form=FORM,
        key=key,
        vm=life.config.name,
        made=time.time(),
        memory=life.config.memory,
        qemu=plan.caps.version_text,
        machine=life.config.machine or "",
        state_sha256=digest,
        drives=drives,
        consoles=consoles,
        files={name: FileState.of(draft.path / name) for name in names},
        channel=access.channel,
        wake=access.wake,
        exec=access.exec,
        folder=os.path.realpath(draft.path),
        sources=sources_of(plan.config, plan.caps.binary),
        **facts,
    )


async def _save_devices(life: Life, path: Path, deadline: Deadline) -> str:
    """Stop the VM and save the state of its devices; the file's digest."""
    await life.hush()
    await life.execute("stop", None, deadline)
    await _refuse_foreign_disks(life, deadline)  # once more: some are opened when the guest wants them
    digest = hashlib.sha256()
    with path.open("xb") as file:

        def write(piece: bytes) -> None:
            digest.update(piece)
            file.write(piece)

        await save_state(life, write, deadline, with_memory=False)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


async def _refuse_foreign_disks(life: Life, deadline: Deadline) -> None:
    """Raise Unfreezable for files that the guest can write and that are no overlays of ours.

    QEMU is asked for all it has open.
    """
    # QMP is UTF-8: QEMU tells a name that is not with U+FFFD in it.
    named = (drive.file for drive in life.drives if drive.file is not None)
    ours = {os.fsencode(file).decode(errors="replace") for file in named}
    nodes = await life.execute("query-named-block-nodes", {"flat": True}, deadline)
    assert isinstance(nodes, list)
    written = {str(node["file"]) for node in nodes if not node["ro"] and node.get("file")}
    foreign = sorted(file for file in written if file not in ours and not file.startswith("json:{"))
    if foreign:
        raise Unfreezable(
            f"{', '.join(foreign)}: the guest writes there directly, so that clones would share it",
            hint="describe the disk under `storage:` instead of `arguments:`, and each clone gets its own",
        )


async def _save_whole(life: Life, path: Path, deadline: Deadline) -> None:
    """Stop the VM and save everything, memory included."""
    await life.hush()
    await life.execute("stop", None, deadline)
    with path.open("xb") as file:
        await save_state(life, file.write, deadline, with_memory=True)


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as source:
        while piece := source.read(_PIECE):
            yield piece


def _memory_file(draft: Draft, config: VmConfig) -> Path:
    """A file for the guest's memory, all hole yet."""
    path = draft.path / RAM
    with path.open("xb") as file:
        file.truncate(config.memory)
    path.chmod(0o600)
    return path


def _copied(drive: Drive, directory: VmDirectory, draft: Draft) -> Drive:
    """A drive of a stopped VM for its copy: what it wrote itself, on the same base, in the draft's folder."""
    if drive.file is None or drive.file.parent != directory.path:
        return drive  # nobody writes it, and it stays when the VM goes
    target = draft.path / VmDirectory(draft.path).disk(drive.name).name
    copy_overlay(drive.file, target)
    chain = backing_chain(probe_image(target))
    own = [image for image in chain if (image.path.parent / USE).exists()]
    if len(own) > 1:  # a clone's: what its template wrote is taken along, for that template may go
        rebase(target, next((image for image in chain if image not in own), None))
    return replace(drive, file=target)


def _frozen(drive: Drive, draft: Draft) -> FrozenDrive:
    written = drive.file is not None and drive.file.parent == draft.path
    disk = drive.file.name if written and drive.file is not None else None
    fresh = None
    if disk is not None:
        fresh = f"fresh-{disk}"
        create_overlay(probe_image(draft.path / disk), draft.path / fresh)
    return FrozenDrive(
        drive.name,
        drive.format,
        drive.interface,
        drive.readonly,
        drive.media,
        drive.node_name,
        file=str(drive.file) if drive.file is not None and disk is None else None,
        disk=disk,
        fresh=fresh,
    )


def _kept_logs(directory: VmDirectory, draft: Draft, config: VmConfig) -> dict[str, str]:
    """Copy what each serial port has said: a clone's log begins with it."""
    kept = {}
    for name in config.serial:
        log = directory.serial_log(name)
        copy_log(log, draft.path / log.name)
        kept[name] = log.name
    return kept


def _copy_logs(source: VmDirectory, target: VmDirectory, config: VmConfig) -> None:
    for name in config.serial:
        with suppress(FileNotFoundError):
            copy_log(source.serial_log(name), target.serial_log(name))
