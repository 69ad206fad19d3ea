"""A template's folder on disk: whose it is, who uses it, how big it is."""

from __future__ import annotations

import os
import stat
from contextlib import AbstractContextManager
from pathlib import Path

from pytest_maqet.runs.leases import held_by_nobody
from pytest_maqet.templates.manifest import Damaged

#: Held shared by all who use a template; its modification time says when that was last.
USE = "use"


def alone(path: Path) -> AbstractContextManager[bool]:
    """Whether nobody uses the folder, for the time of the block; false where there is nothing to lock."""
    return held_by_nobody(path / USE)


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, down on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def check_private(path: Path) -> None:
    """Raise Damaged unless the folder is a real one of ours that nobody else may look into."""
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise Damaged("it is not a directory")
    if found.st_uid != os.geteuid():
        raise Damaged(f"it belongs to user id {found.st_uid}, not to {os.geteuid()}")
    if found.st_mode & 0o077:
        raise Damaged(f"it is open to others (mode {stat.S_IMODE(found.st_mode):04o})")


def size_of(path: Path) -> int:
    """Bytes that a folder takes on the disk: memory files have holes."""
    return sum(file.lstat().st_blocks * 512 for file in path.iterdir())
