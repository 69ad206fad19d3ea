"""Checkpoints: memory, devices and disks of a running VM saved together, and all brought back in place.

Each checkpoint is a set of internal snapshots under one tag: one in every qcow2 disk that the guest may
write, and one with memory and devices in a qcow2 file of its own, which no device uses (snapshot-save and
snapshot-load, qapi/migration.json of QEMU). The process, its sockets and its forwarded ports go on.

A file for each checkpoint, and not one for all: what a failed save has written is given back to the disk by
deleting it.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import (
    MaqetError,
    NotSupported,
    QemuDied,
    QMPCommandError,
)
from pytest_maqet.guest.wake_port import WakeAnswer
from pytest_maqet.machine.checkpoint_book import Checkpoint, CheckpointBook
from pytest_maqet.machine.jobs import run_job
from pytest_maqet.machine.life import Life
from pytest_maqet.machine.migration import ALIVE
from pytest_maqet.machine.power import press_reset
from pytest_maqet.machine.waking import awaken, way_to_wake
from pytest_maqet.waiting.vitals import RESTORE_JOB

#: The states out of which `cont` is refused until the machine was reset (runstate_needs_reset in
#: softmmu/runstate.c).
_NEED_RESET = {"shutdown", "internal-error"}
#: Half a megabyte saves bookkeeping: memory is written in large pieces, one after the other.
_CLUSTER = 512 * 1024
# QEMU reads a state in pieces of 32 KiB. By a thread each costs two wake-ups, by io_uring none, and a restore
# takes half the time; not every kernel and sandbox allows it.
_WAYS_TO_READ = ("io_uring", "threads")


def book_of(life: Life) -> CheckpointBook:
    """The VM's checkpoints as they are now."""
    return CheckpointBook(life.directory.checkpoint_book, life.process.pid)


async def take(life: Life, name: str, deadline: Deadline) -> None:
    """Save memory, devices and disks as checkpoint `name`; one of that name is replaced.

    The guest stands still meanwhile and goes on after it, also when it failed.
    Raises NotSupported where the VM, or the state it is in, has no checkpoints; QMPCommandError when the save
    failed, as on a full disk: there is no checkpoint of that name then.
    """
    state = await life.run_state(deadline)
    if state not in ALIVE:
        raise NotSupported(
            f"{life.config.name}: no checkpoint can be taken of a guest that is in the state {state!r}",
            hint="take it before, or bring the guest back first: vm.reset(), vm.restore(…)",
        )
    book = book_of(life)
    disks = await _written_disks(life, deadline)
    await _forget_lost(life, book, tuple(disks), deadline)
    old = book.taken.get(name)
    tag = old.tag if old else f"maqet-{secrets.token_hex(4)}"
    new = Checkpoint(tag, tuple(disks), running=state == "running")
    try:
        if old is None:
            await _make_store(life, tag, deadline)
        await life.execute("stop", None, deadline)
        if old is not None:
            book.strike(name)
            await _delete_snapshot(life, tag, (tag, *old.disks), deadline)
        await _whole_memory(life, deadline)
        await run_job(life, "snapshot-save", _snapshot(new), deadline)
        book.enter(name, new)
    except (OSError, QMPCommandError) as error:
        worded = _not_taken(life, name, error, disks, replaced=old is not None)  # before there is room again
        await _drop(life, book, name, new, _afterwards(life, deadline))
        raise worded from None
    except BaseException:
        await _drop(life, book, name, new, _afterwards(life, deadline))
        raise
    finally:
        if new.running:
            with suppress(QemuDied):  # who asked is told of it
                await life.execute("cont", None, _afterwards(life, deadline))


async def load(life: Life, name: str, deadline: Deadline) -> tuple[Checkpoint, str]:
    """Put memory, devices and disks back to checkpoint `name`; the guest stands still, `go_on` is the rest.

    Returns the checkpoint, and how the guest can be woken.

    What is under way in the guest ends with ChannelError. Raises MaqetError for a name that is not there,
    QemuDied when the process with the checkpoint is gone, QMPCommandError when QEMU could not load it.
    """
    checkpoint = book_of(life).find(name, life.config.name)
    if life.vitals.exit is not None:
        raise _gone(life, name)
    wake = await way_to_wake(life)
    await life.execute("stop", None, deadline)
    await life.break_off()
    if await life.run_state(deadline) in _NEED_RESET:
        await press_reset(life, deadline)
    await _whole_memory(life, deadline)
    try:
        await run_job(life, "snapshot-load", _snapshot(checkpoint), deadline, prefix=RESTORE_JOB)
    except QMPCommandError as error:
        raise QMPCommandError(
            f"{life.config.name}: checkpoint {name!r} could not be restored: {error.description}",
            error_class=error.error_class,
            description=error.description,
            command=error.command,
            arguments=error.arguments,
            hint="the guest may be half restored, so it was left paused: vm.restore(…) another checkpoint, "
            "or vm.reset() and vm.resume(); were devices added or removed since the checkpoint?",
        ) from None
    return checkpoint, wake


async def go_on(life: Life, checkpoint: Checkpoint, wake: str, deadline: Deadline) -> WakeAnswer | None:
    """Let the guest run if it ran at its checkpoint, with the host's clock and random numbers of its own."""
    return await awaken(life, wake, deadline) if checkpoint.running else None


def _afterwards(life: Life, deadline: Deadline) -> Deadline:
    """For what has to be done even when the caller's time is over."""
    return Deadline.after(life.config.timeouts.qmp, deadline.scale)


def _snapshot(checkpoint: Checkpoint) -> dict[str, Any]:
    return {"tag": checkpoint.tag, "vmstate": checkpoint.tag, "devices": [checkpoint.tag, *checkpoint.disks]}


async def _written_disks(life: Life, deadline: Deadline) -> dict[str, str]:
    """Block nodes that the guest may write, whoever added them → file and format, for messages."""
    devices: Any = await life.execute("query-block", None, deadline)
    found = {
        node["node-name"]: f"{node['file']} ({node['drv']})"
        for node in (device.get("inserted") for device in devices)
        if node is not None and not node["ro"]
    }
    for drive in life.drives:
        if drive.interface == "none" and drive.file is not None and not drive.readonly:
            found.setdefault(drive.node_name, f"{drive.file} ({drive.format})")
    return found


async def _whole_memory(life: Life, deadline: Deadline) -> None:
    """Memory belongs into the checkpoint, also where it is a file that clones share (x-ignore-shared)."""
    off = [{"capability": "x-ignore-shared", "state": False}]
    await life.execute("migrate-set-capabilities", {"capabilities": off}, deadline)


# -- the files with the memory -----------------------------------------------------------------------------


async def _make_store(life: Life, tag: str, deadline: Deadline) -> None:
    """A qcow2 file as block node `tag`, with no device."""
    path = life.directory.checkpoint_memory(tag)
    path.touch(mode=0o600)
    for way in _WAYS_TO_READ:
        node = {"driver": "file", "node-name": f"{tag}-file", "filename": str(path), "aio": way}
        try:
            await life.execute("blockdev-add", {**node, "cache": {"no-flush": True}}, deadline)
            break
        except QMPCommandError:
            if way == _WAYS_TO_READ[-1]:
                raise
    image = {"driver": "qcow2", "file": f"{tag}-file", "size": 0, "cluster-size": _CLUSTER}
    await run_job(life, "blockdev-create", {"options": image}, deadline)
    # What a replaced checkpoint had written is freed inside the file and used again, which is quicker than
    # blocks that are new.
    node = {"driver": "qcow2", "node-name": tag, "file": f"{tag}-file", "discard": "unmap"}
    await life.execute("blockdev-add", {**node, "cache": {"no-flush": True}}, deadline)


async def _drop(life: Life, book: CheckpointBook, name: str, failed: Checkpoint, deadline: Deadline) -> None:
    """Delete a checkpoint that failed, as far as it came."""
    life.directory.checkpoint_memory(failed.tag).unlink(missing_ok=True)
    with suppress(OSError):
        book.strike(name)
    with suppress(MaqetError):
        await _delete_snapshot(life, failed.tag, failed.disks, deadline)
    for node in (failed.tag, f"{failed.tag}-file"):
        with suppress(MaqetError):
            await life.execute("blockdev-del", {"node-name": node}, deadline)


async def _delete_snapshot(life: Life, tag: str, nodes: Sequence[str], deadline: Deadline) -> None:
    """Nodes without this snapshot are fine."""
    if nodes:
        await run_job(life, "snapshot-delete", {"tag": tag, "devices": list(nodes)}, deadline)


async def _forget_lost(life: Life, book: CheckpointBook, disks: Sequence[str], deadline: Deadline) -> None:
    """What earlier QEMU processes left on the VM's disks is of no use any more."""
    if not book.lost:
        return
    for checkpoint in book.lost.values():
        life.directory.checkpoint_memory(checkpoint.tag).unlink(missing_ok=True)
        still_there = [node for node in checkpoint.disks if node in disks]
        with suppress(QMPCommandError):
            await _delete_snapshot(life, checkpoint.tag, still_there, deadline)
    with suppress(OSError):  # on a full disk the next checkpoint tries again
        book.strike_lost()


# -- errors in words ---------------------------------------------------------------------------------------


def _not_taken(
    life: Life, name: str, error: OSError | QMPCommandError, disks: dict[str, str], *, replaced: bool
) -> MaqetError:
    said = str(error.strerror) if isinstance(error, OSError) else error.description
    message = f"{life.config.name}: checkpoint {name!r} could not be taken: {said}"
    if replaced:
        message += "\nthe earlier checkpoint of that name is gone"
    if "does not support snapshots" in said:
        unfit = [f"  {node}: {what}" for node, what in disks.items() if not what.endswith("(qcow2)")]
        return NotSupported(
            "\n".join([message, "disks that the guest may write must be qcow2, and these are not:", *unfit]),
            hint="describe the disk under `storage:` (a raw file becomes the base of a qcow2 overlay), or "
            "make it read-only",
        )
    if "migrat" in said.lower():
        return NotSupported(message, hint="QEMU cannot save that device's state: leave it out of this VM")
    hint = None
    if shutil.disk_usage(life.directory.path).free < 2 * _CLUSTER:  # QEMU tells of an input/output error only
        message += (
            f"\nthe file system of {life.directory.path} is full; what the guest uses of its memory must fit"
        )
        hint = "make room, or name a directory elsewhere in MAQET_RUN_BASE"
    command = "snapshot-save" if isinstance(error, OSError) else error.command
    return QMPCommandError(message, error_class="GenericError", description=said, command=command, hint=hint)


def _gone(life: Life, name: str) -> QemuDied:
    death = life.vitals.death()
    return QemuDied(
        f"{life.config.name}: checkpoint {name!r} went with its QEMU process\n{death.message}",
        code=death.code,
        signal=death.signal,
        stderr=death.stderr,
        hint="vm.start() boots the disks as they are now; a guest that has panicked or powered off can be "
        "restored, one whose QEMU has ended (vm.stop(), vm.kill(), vm.wait.exit()) cannot",
    )
