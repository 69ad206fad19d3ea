"""What is said when a disk of the host is full, or cannot be read or written: QEMU then pauses the VM.

QEMU's default for a write that finds no space is to stop the guest (`werror=enospc`) and to tell of it in the
event BLOCK_IO_ERROR: docs/interop/qemu-qmp-ref, qemu(1) on `-drive werror`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_maqet.errors import DiskError

#: A file system with less than this free is called full: logs do not grow any more. Bytes.
ALMOST_NOTHING = 64 << 10
#: The words that tell it in an error's text.
FULL = "is full"


def stopped_by(event: Mapping[str, Any]) -> bool:
    """Whether this BLOCK_IO_ERROR has paused the VM; else the guest itself was told of an error."""
    return bool(event.get("action") == "stop")


def disk_error(vm: str, event: Mapping[str, Any], file: Path | None, context: str) -> DiskError:
    """The error for a VM that a BLOCK_IO_ERROR has paused; `file` is the drive's on the host."""
    node = event.get("node-name") or event.get("device") or "a drive"
    drive = f"{node} ({file})" if file is not None else str(node)
    why = "the host's disk is full" if event.get("nospace") else f"the host says {event.get('reason')!r}"
    free = _free(file.parent) if file is not None else None
    left = f", {free >> 10} KiB are free there now" if free is not None else ""
    if event.get("nospace"):
        cure = "make room there (or name a directory elsewhere in MAQET_RUN_BASE); vm.resume() then goes on"
    else:
        cure = "vm.resume() tries once more; a test that means it to fail says vm.expecting(DiskError)"
    return DiskError(
        f"{vm}: {why}: QEMU could not {event.get('operation', 'write')} {drive} and has paused the VM{left}\n"
        f"{context}",
        hint=cure,
    )


def full_note(folder: Path) -> str:
    """A line for errors where the file system of a VM's files is full; else nothing."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return ""
    free = found.f_bavail * found.f_frsize
    if free < ALMOST_NOTHING:
        return f"the disk of {folder} {FULL} ({free >> 10} KiB free): consoles and logs may have ended early"
    if found.f_files and not found.f_favail:
        return f"the file system of {folder} has no inodes left: no file can be made there"
    return ""


def _free(folder: Path) -> int | None:
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize
