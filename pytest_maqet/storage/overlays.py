"""Disks made for one VM: overlays on base images, and empty ones."""

from __future__ import annotations

from pathlib import Path

from pytest_maqet.storage.image_tool import as_argument, qemu_img
from pytest_maqet.storage.images import BaseImage


def create_overlay(base: BaseImage, target: Path, *, size: int | None = None) -> None:
    """Make `target` a qcow2 disk (mode 0600) that begins as a copy of `base` and takes all writes.

    `size` in bytes makes the disk larger than its base; a smaller one is ignored, it would cut the base off.
    Raises StartError.
    """
    options = ["-b", as_argument(base.path), "-F", base.format]
    larger = [str(size)] if size is not None and size > base.size else []
    _create(target, options, larger, f"making an overlay on {base.path}")


def create_disk(target: Path, *, size: int) -> None:
    """Make `target` an empty qcow2 disk (mode 0600) of `size` bytes. Raises StartError."""
    _create(target, [], [str(size)], f"making a disk of {size} bytes")


def _create(target: Path, options: list[str], size: list[str], what: str) -> None:
    target.touch(mode=0o600)  # qemu-img keeps the mode of a file that is there
    qemu_img(["create", "-q", "-f", "qcow2", *options, as_argument(target), *size], what)
