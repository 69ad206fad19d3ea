"""Base images: what a VM's disks start as copies of. They are read, and never opened for writing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pytest_maqet.config import BuiltinImage, Image, ImagePath, RemoteImage
from pytest_maqet.config.paths import missing_file
from pytest_maqet.errors import StartError
from pytest_maqet.storage.download import fetched
from pytest_maqet.storage.image_tool import as_argument, qemu_img

#: How packed files begin (RFC 1952, the .xz file format 1.2, RFC 8878, the bzip2 format), with what unpacks.
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
}


@dataclass(frozen=True)
class BaseImage:
    """An image on this host: its file, its format, and the size of the disk in it, in bytes.

    `backing` is the file that it was made on, which must stay as it is.
    """

    path: Path
    format: str
    size: int
    backing: Path | None = None


#: What qemu-img said of a state of a file: path, size, modification time, inode, and whether raw was said.
_known: dict[tuple[Path, int, int, int, bool], BaseImage] = {}


def resolve_image(image: Image, *, report: Callable[[str], None] | None = None) -> BaseImage:
    """The file behind `image:`; a remote one is downloaded once and verified, `report` gets its progress.

    Raises StartError for what is missing, not readable, no image, or not what its checksum says.
    """
    if isinstance(image, ImagePath):
        return probe_image(image.path)
    if isinstance(image, RemoteImage):
        return probe_image(fetched(image, report=report))
    assert isinstance(image, BuiltinImage)
    raise StartError(f"builtin:{image.name} is a guest, not an image file")


def probe_image(path: Path, image_format: str | None = None) -> BaseImage:
    """What qemu-img finds in a file; asked once for each state of the file.

    `image_format` says what the configuration takes it for: "raw" is believed, since every file can be that;
    None asks. Raises StartError.
    """
    fault = missing_file(path)
    if fault is not None:
        raise StartError(f"the image {fault}")
    raw = image_format == "raw"
    try:
        found = path.stat()
    except OSError as error:  # gone since we looked
        raise StartError(f"the image {path} cannot be used: {error.strerror}") from error
    key = (path, found.st_size, found.st_mtime_ns, found.st_ino, raw)
    if key not in _known:
        _known[key] = _asked(path, raw=raw)
    image = _known[key]
    if image_format is not None and image.format != image_format:
        raise StartError(
            f"the image {path} should be {image_format}, and is {image.format}", hint=_cure(image)
        )
    return image


def backing_chain(image: BaseImage) -> list[BaseImage]:
    """The image, and all that it was made on, each on the one after it. Raises as `probe_image`."""
    chain = [image]
    while (backing := chain[-1].backing) is not None and backing not in {known.path for known in chain}:
        chain.append(probe_image(backing))
    return chain


def _asked(path: Path, *, raw: bool) -> BaseImage:
    """Not `--force-share`: an image that a program writes is refused, one that VMs read is not."""
    said = ("-f", "raw") if raw else ()
    what = f"looking into the image {path}"
    answer = json.loads(qemu_img(["info", "--output=json", *said, as_argument(path)], what))
    backing = answer.get("full-backing-filename", answer.get("backing-filename"))
    image = BaseImage(
        path,
        str(answer["format"]),
        int(answer["virtual-size"]),
        Path(backing.removeprefix("file:")) if backing else None,
    )
    if not image.size:
        raise StartError(f"the image {path} is empty: there is no disk in it")
    if image.format == "raw" and not raw:
        _refuse_packed(path)
    return image


def _refuse_packed(path: Path) -> None:
    """A packed image would pass for a raw one, and never boot."""
    try:
        with path.open("rb") as file:
            beginning = file.read(8)
    except OSError as error:
        raise StartError(f"the image {path} cannot be read: {error.strerror}") from error
    for magic, packer in _PACKED.items():
        if beginning.startswith(magic):
            raise StartError(
                f"the image {path} is packed with {packer}",
                hint=f"unpack it: `{packer} -d < {os.fspath(path)} > IMAGE`",
            )


def _cure(image: BaseImage) -> str:
    if image.format == "raw":
        return "say what it is, `type: raw` (or `backing_format: raw`), if it is a disk image at all"
    if image.format == "qcow2":
        return "say what it is: `type: qcow2` (or `backing_format: qcow2`)"
    return f"make a qcow2 image of it: `qemu-img convert -f {image.format} -O qcow2 {image.path} IMAGE`"
