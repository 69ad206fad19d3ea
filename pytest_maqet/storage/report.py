"""What is known about a VM's drives, for tests and reports."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol


class ReportedDrive(Protocol):
    """What a report needs of a drive."""

    @property
    def name(self) -> str:
        """The drive's name."""
        ...

    @property
    def file(self) -> Path | None:
        """Its file, None for a CD drive without a disc."""
        ...

    @property
    def format(self) -> str:
        """The file's format."""
        ...

    @property
    def interface(self) -> str:
        """How the guest sees it."""
        ...

    @property
    def readonly(self) -> bool:
        """Whether the guest can write."""
        ...

    @property
    def media(self) -> str:
        """`disk` or `cdrom`."""
        ...


def storage_info(drives: Iterable[ReportedDrive]) -> list[dict[str, Any]]:
    """One row per drive: `name type file format interface readonly exists bytes`.

    `bytes` is what the file takes on the host's disk, 0 where there is none.
    """
    return [_MEDIA[drive.media](drive) for drive in drives]


def _disk(drive: ReportedDrive) -> dict[str, Any]:
    return {"name": drive.name, "type": "disk", "readonly": drive.readonly, **_file(drive)}


def _cdrom(drive: ReportedDrive) -> dict[str, Any]:
    return {"name": drive.name, "type": "cdrom", "readonly": True, **_file(drive)}


def _file(drive: ReportedDrive) -> dict[str, Any]:
    taken = _bytes_taken(drive.file) if drive.file is not None else None
    return {
        "file": drive.file,
        "format": drive.format,
        "interface": drive.interface,
        "exists": taken is not None,
        "bytes": taken or 0,
    }


def _bytes_taken(path: Path) -> int | None:
    """None where there is no file (any more)."""
    try:
        return path.stat().st_blocks * 512  # stat(2): always in units of 512 bytes
    except OSError:
        return None


_MEDIA = {"disk": _disk, "cdrom": _cdrom}
