"""The embedded guests by name: what `image: builtin:NAME` means."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pytest_maqet.errors import ConfigError, StartError
from pytest_maqet.guests.linux_build import linux_guest

#: All names that `builtin_guest` knows.
NAMES = ("linux", "nano")

#: What both guests print, in a line of their own, at the end of their boot (a regular expression).
READY = "guest ready"

_NANO_IMAGE = Path(__file__).parent / "nano" / "nano.img"


@dataclass(frozen=True)
class BuiltinGuest:
    """What a VM needs to run an embedded guest.

    Either `kernel` and `initrd` with `append` (the kernel's arguments), or `image`: a raw disk, read-only for
    all, attached by `image_interface`. `connect` are the channels it answers on, best first. `identity`
    changes whenever the guest's contents do.
    """

    name: str
    identity: str
    connect: tuple[str, ...]
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    image: Path | None = None
    image_interface: Literal["virtio", "ide", "sata", "scsi", "nvme", "none"] = "virtio"
    ready: str = READY


def builtin_guest(
    name: str, arch: str = "x86_64", *, report: Callable[[str], None] | None = None
) -> BuiltinGuest:
    """The embedded guest `name` (with or without `builtin:`) for machines of `arch`.

    `builtin:linux` is built on first use, and `report` gets lines of progress; see `linux_build`.
    Raises `ConfigError` for a name or an architecture that there is no guest for, `StartError` when it cannot
    be built.
    """
    short = name.removeprefix("builtin:")
    if short not in NAMES:
        near = difflib.get_close_matches(short, NAMES, n=1)
        guess = f"; did you mean builtin:{near[0]}?" if near else ""
        raise ConfigError(
            f"there is no embedded guest 'builtin:{short}'{guess}",
            hint=f"allowed: {', '.join(f'builtin:{known}' for known in NAMES)}",
        )
    if arch != "x86_64":
        raise ConfigError(
            f"builtin:{short} runs on x86_64 machines only, not on {arch}",
            hint="leave out 'arch', or name an image or a kernel of your own",
        )
    return _nano() if short == "nano" else _linux(report or _silence)


def _silence(_: str) -> None:
    """Tell nobody."""


def _linux(report: Callable[[str], None]) -> BuiltinGuest:
    guest = linux_guest(report=report)
    return BuiltinGuest(
        name="linux",
        identity=guest.identity,
        connect=("agent", "console"),
        kernel=guest.kernel,
        initrd=guest.initrd,
        append="console=ttyS0 quiet cryptomgr.notests",
    )


def _nano() -> BuiltinGuest:
    if not _NANO_IMAGE.is_file():
        raise StartError(f"{_NANO_IMAGE} is missing", hint="reinstall pytest-maqet: the package is not whole")
    with _NANO_IMAGE.open("rb") as image:
        identity = hashlib.sha256(image.read(512)).hexdigest()[:16]  # the rest is empty
    return BuiltinGuest(name="nano", identity=identity, connect=(), image=_NANO_IMAGE)
