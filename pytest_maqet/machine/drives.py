"""The disks a VM starts with: overlays on its base images, made once and kept for all its lives."""

from __future__ import annotations

from collections.abc import Callable

from pytest_maqet.config import DEFAULT_DISK_SIZE, BuiltinImage, Storage, VmConfig
from pytest_maqet.guests.builtin import BuiltinGuest
from pytest_maqet.qemu.inputs import Drive
from pytest_maqet.runs.vm_directory import VmDirectory
from pytest_maqet.storage.images import BaseImage, probe_image, resolve_image
from pytest_maqet.storage.overlays import create_disk, create_overlay

#: The name of the drive that `image:` makes.
ROOT = "root"


def make_drives(
    config: VmConfig,
    guest: BuiltinGuest | None,
    directory: VmDirectory,
    *,
    fresh: bool,
    report: Callable[[str], None],
) -> tuple[Drive, ...]:
    """Every drive of the VM, the image's first; with `fresh`, what is writable is created in `directory`.

    Base images are never opened for writing; `report` gets lines of progress of a download. Raises StartError
    for images that cannot be used.
    """
    drives: list[Drive] = []
    if guest is not None and guest.image is not None:
        drives.append(Drive(ROOT, guest.image, "raw", interface=guest.image_interface, readonly=True))
    elif config.image is not None and not isinstance(config.image, BuiltinImage):
        target = directory.disk(ROOT)
        if fresh:
            create_overlay(resolve_image(config.image, report=report), target)
        drives.append(Drive(ROOT, target))
    drives.extend(_storage_drive(entry, directory, fresh=fresh) for entry in config.storage)
    return tuple(drives)


def _storage_drive(entry: Storage, directory: VmDirectory, *, fresh: bool) -> Drive:
    if entry.type == "cdrom":
        image = probe_image(entry.file) if entry.file is not None else None
        return Drive(
            entry.name,
            image.path if image else None,
            image.format if image else "raw",
            interface=entry.interface,
            readonly=True,
            media="cdrom",
        )
    if entry.readonly and entry.file is not None:
        image = probe_image(entry.file, entry.type)
        return Drive(entry.name, image.path, image.format, interface=entry.interface, readonly=True)
    target = directory.disk(entry.name)
    if fresh:
        base = _base_of(entry)
        if base is not None:
            create_overlay(base, target, size=entry.size)
        else:
            create_disk(target, size=entry.size or DEFAULT_DISK_SIZE)
    return Drive(entry.name, target, interface=entry.interface, readonly=entry.readonly)


def _base_of(entry: Storage) -> BaseImage | None:
    """What the disk starts as a copy of, or None for an empty one."""
    base = entry.base
    if base is None:
        return None
    return probe_image(base, entry.backing_format if base == entry.backing_file else entry.type)
