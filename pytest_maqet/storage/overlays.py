"""Disks made for one VM: overlays on base images, and empty ones."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pytest_maqet.errors import StartError
from pytest_maqet.storage.image_tool import as_argument, qemu_img
from pytest_maqet.storage.images import BaseImage

#: The longest name of a backing file that a qcow2 image can keep, in bytes (docs/interop/qcow2.txt of QEMU).
LONGEST_BACKING_NAME = 1023


def create_overlay(base: BaseImage, target: Path, *, size: int | None = None) -> None:
    """Make the file `target` a qcow2 disk (mode 0600) that begins as a copy of `base` and takes all writes.

    `size` in bytes makes the disk larger than its base; a smaller one is ignored, it would cut the base off.
    Raises StartError; no file is left then. A file that exists is not overwritten.
    """
    name = as_argument(base.path)
    if len(os.fsencode(name)) > LONGEST_BACKING_NAME:
        raise StartError(
            f"the path of the image {base.path} is too long for an overlay on it: at most "
            f"{LONGEST_BACKING_NAME - len('file:')} bytes fit"
        )
    larger = [str(size)] if size is not None and size > base.size else []
    _create(target, ["-b", name, "-F", base.format], larger, f"making an overlay on {base.path}")


def create_disk(target: Path, *, size: int) -> None:
    """Make the file `target` an empty qcow2 disk (mode 0600) of `size` bytes.

    Raises StartError; no file is left then. A file that exists is not overwritten.
    """
    _create(target, [], [str(size)], f"making a disk of {size} bytes")


def copy_overlay(source: Path, target: Path) -> None:
    """Make `target` a copy of a qcow2 disk (mode 0600), on the same backing file.

    Nobody may write `source` meanwhile. Raises StartError; no file is left then.
    """
    try:
        shutil.copyfile(
            source, target
        )  # as small as the overlay is; the kernel copies, and shares where it can
        target.chmod(0o600)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise StartError(f"copying the disk {source} failed: {error.strerror}") from error


def rebase(disk: Path, base: BaseImage | None) -> None:
    """Put a qcow2 disk on another file of its backing chain; what lay between goes into the disk.

    `base` None makes it a disk of its own. Raises StartError.
    """
    where = ["-b", as_argument(base.path), "-F", base.format] if base is not None else ["-b", ""]
    qemu_img(["rebase", "-f", "qcow2", *where, as_argument(disk)], f"taking along what {disk} lies on")


def _create(target: Path, options: list[str], size: list[str], what: str) -> None:
    try:
        target.touch(mode=0o600, exist_ok=False)  # qemu-img keeps the mode of a file that is there
    except OSError as error:
        raise StartError(f"{what} failed: {target}: {error.strerror}") from error
    try:
        qemu_img(["create", "-q", "-f", "qcow2", *options, as_argument(target), *size], what)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
