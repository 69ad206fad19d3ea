"""Removing what a VM leaves on disk."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path


def remove_tree(path: Path) -> None:
    """Remove a directory of ours and all in it; what cannot be removed is left to the next run's sweep."""
    shutil.rmtree(path, ignore_errors=True)


def empty_tree(path: Path) -> None:
    """Remove all that is in a directory of ours, but not itself: no other VM is given its name."""
    with suppress(OSError):
        for entry in list(path.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                remove_tree(entry)
            else:
                entry.unlink(missing_ok=True)
