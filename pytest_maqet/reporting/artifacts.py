"""The artifacts directory: kept out of version control, as pytest's cache is."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def made_folder(root: Path, folder: Path) -> Path:
    """Make a test's folder below the artifacts directory, and that one with its `.gitignore`."""
    folder.mkdir(parents=True, exist_ok=True)
    mark_ignored(root)
    return folder


def mark_ignored(root: Path) -> None:
    """Give the artifacts directory, where it exists, a `.gitignore` of its own."""
    ignore = root / ".gitignore"
    if root.is_dir() and not ignore.exists():
        ignore.write_text("# Made by pytest-maqet: what is left of failed tests.\n*\n", encoding="utf-8")


def shown_path(folder: Path) -> str:
    """A folder as seen from the working directory, where it is below that."""
    with suppress(ValueError):
        return str(folder.relative_to(Path.cwd()))
    return str(folder)
