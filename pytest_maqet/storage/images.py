"""Base images: what a VM's disks start as copies of. They are read, and never opened for writing."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from pytest_maqet.config import BuiltinImage, Image, ImagePath, RemoteImage
from pytest_maqet.errors import StartError
from pytest_maqet.storage.download import fetched
from pytest_maqet.storage.image_tool import as_argument, qemu_img


@dataclass(frozen=True)
class BaseImage:
    """An image on this host: its file, its format, and the size of the disk in it, in bytes."""

    path: Path
    format: str
    size: int


_known: dict[tuple[Path, int, int, int], BaseImage] = {}


def resolve_image(image: Image) -> BaseImage:
    """The file behind `image:`; a remote one is downloaded once and verified.

    Raises StartError for what is missing, not readable, no image, or not what its checksum says.
    """
    if isinstance(image, ImagePath):
        return probe_image(image.path)
    if isinstance(image, RemoteImage):
        return probe_image(fetched(image))
    assert isinstance(image, BuiltinImage)
    raise StartError(f"builtin:{image.name} is a guest, not an image file")


def probe_image(path: Path, image_format: str | None = None) -> BaseImage:
    """What qemu-img finds in a file; asked once for each state of the file.

    `image_format` says what the configuration takes it for: "raw" is believed, since qemu-img only guesses
    that; None asks. Raises StartError.
    """
    found = _stat(path)
    key = (path, found.st_size, found.st_mtime_ns, found.st_ino)
    if key not in _known:
        _known[key] = _asked(path)
    asked = _known[key]
    if image_format == "raw":
        return BaseImage(path, "raw", found.st_size or asked.size)
    if image_format is not None and asked.format != image_format:
        raise StartError(
            f"the image {path} should be {image_format}, and is {asked.format}",
            hint="leave out the format, or convert the image with qemu-img",
        )
    return asked


def _stat(path: Path) -> os.stat_result:
    try:
        found = path.stat()
    except FileNotFoundError:
        what = "is a dangling link" if path.is_symlink() else "does not exist"
        raise StartError(f"the image {path} {what}") from None
    except OSError as error:
        raise StartError(f"the image {path} cannot be used: {error.strerror}") from None
    if path.is_dir():
        raise StartError(f"the image {path} is a directory", hint="name the image file in it")
    if not os.access(path, os.R_OK):
        raise StartError(f"the image {path} is not readable by this user")
    return found


def _asked(path: Path) -> BaseImage:
    # --force-share: another VM may be running from an overlay on it, or from the image itself, read-only.
    text = qemu_img(
        ["info", "--force-share", "--output=json", as_argument(path)], f"looking into the image {path}"
    )
    found = json.loads(text)
    return BaseImage(path, str(found["format"]), int(found["virtual-size"]))
