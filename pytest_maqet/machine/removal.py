"""Removing what a VM leaves on disk."""

from __future__ import annotations

import shutil
from pathlib import Path


def remove_tree(path: Path) -> None:
    """Remove a directory of ours and all in it; what cannot be removed is left to the next run's sweep."""
    shutil.rmtree(path, ignore_errors=True)
