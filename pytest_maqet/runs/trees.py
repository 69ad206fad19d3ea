"""Directory trees of ours: how big they are, and how they are removed. Symbolic links are never followed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

#: What st_blocks counts in (stat(2)), in bytes.
_BLOCK = 512


def size_of(path: Path) -> int:
    """Bytes that a file or a tree takes on the disk: holes cost nothing. What cannot be seen counts 0."""
    return sum(entry.st_blocks for entry in _statuses(path)) * _BLOCK


def last_used(path: Path) -> float:
    """When anything in a file or tree was changed last, in seconds since the epoch; 0 where it is gone."""
    return max((entry.st_mtime for entry in _statuses(path)), default=0.0)


def remove_tree(path: Path) -> bool:
    """Remove a directory of ours and all that is in it; whether it is gone.

    A folder that its owner may not look into is opened first. What others are removing at the same time is
    theirs; what stays is told by the result only.
    """
    shutil.rmtree(path, ignore_errors=True)
    if os.path.lexists(path):
        _open_folders(path)
        shutil.rmtree(path, ignore_errors=True)
    return not os.path.lexists(path)


def _statuses(path: Path) -> Iterator[os.stat_result]:
    with contextlib.suppress(OSError):
        yield path.lstat()
    for folder, directories, files in os.walk(path, followlinks=False):
        for name in (*directories, *files):
            with contextlib.suppress(OSError):
                yield Path(folder, name).lstat()


def _open_folders(path: Path) -> None:
    """Give the owner all rights on the folders of a tree, from the top, as far as they are its own."""
    _open(path)
    for folder, directories, _files in os.walk(path, followlinks=False):
        for name in directories:
            _open(Path(folder, name))


def _open(path: Path) -> None:
    """Only a folder itself: the descriptor is opened without following a link, and asked what it is."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # fchmod refuses O_PATH descriptors; their link in /proc leads to the folder that was opened.
            Path(f"/proc/self/fd/{fd}").chmod(0o700)
        finally:
            os.close(fd)
