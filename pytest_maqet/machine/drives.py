"""The disks a VM starts with: overlays on its base images, made once and kept for all its lives."""

from __future__ import annotations

from pathlib import Path

from pytest_maqet.config import VmConfig
from pytest_maqet.guests.builtin import BuiltinGuest
from pytest_maqet.qemu.command_line import Drive
from pytest_maqet.runs.vm_directory import VmDirectory
from pytest_maqet.storage import disks


def make_drives(config: VmConfig, guest: BuiltinGuest | None, directory: VmDirectory) -> tuple[Drive, ...]:
    """Create what is writable under `directory` and return every drive of the VM, the image's first.

    Base images are never opened for writing. Raises StartError for images that cannot be used.
    """
    raise NotImplementedError
