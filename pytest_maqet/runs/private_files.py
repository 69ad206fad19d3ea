"""Files that only their user may read, whatever the umask: as private as the directory they lie in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO


def open_private(path: Path) -> BinaryIO:
    """Open a file to write it anew, with mode 0600 where it is made here. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def write_private(path: Path, text: str) -> None:
    """Write a text file; see `open_private`."""
    with open_private(path) as file:
        file.write(text.encode())
