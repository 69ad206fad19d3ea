"""A file that is being downloaded: what has arrived so far, and of which version of the server's file."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True)
class Partial:
    """`data` holds what has arrived; a file beside it says what that is the beginning of.

    Only ever touched under the lock of its download. Methods raise OSError.
    """

    data: Path

    @property
    def size(self) -> int:
        """How many bytes have arrived."""
        return self.data.stat().st_size if self.data.exists() else 0

    def version_of(self, url: str) -> str | None:
        """What the server called the version that this is the beginning of; None where that is not known."""
        try:
            known = json.loads(self._version_file.read_text())
            return str(known["version"]) if known["url"] == url and known["version"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def begin(self, url: str, version: str | None) -> None:
        """Forget what has arrived: this is a file that the server calls `version`, from its first byte."""
        self.remove()
        self._version_file.write_text(json.dumps({"url": url, "version": version}))

    def opened(self) -> BinaryIO:
        """The file, to write on at its end."""
        fd = os.open(self.data, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return os.fdopen(fd, "ab")

    def digest(self, kind: str) -> str:
        """The checksum of what has arrived, in hexadecimal digits."""
        with self.data.open("rb") as file:
            return hashlib.file_digest(file, kind).hexdigest()

    def finish(self, target: Path) -> None:
        """It is whole: give it its name, in one step and for good."""
        with self.data.open("rb") as file:
            os.fsync(file.fileno())  # the name is all that is looked at later, also after a crash of the host
        self.data.chmod(0o400)
        self.data.replace(target)
        self.remove()

    def remove(self) -> None:
        """Leave nothing of it."""
        self.data.unlink(missing_ok=True)
        self._version_file.unlink(missing_ok=True)

    @property
    def _version_file(self) -> Path:
        return self.data.with_name(f"{self.data.name}.version")
