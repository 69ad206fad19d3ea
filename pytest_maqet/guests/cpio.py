"""Writes initramfs archives: cpio "newc" files, with device nodes and owners that need no root.

Format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Times, owners and inode
numbers are fixed, so that the same contents always give the same bytes.
"""

from __future__ import annotations

import stat
from pathlib import PurePosixPath
from types import TracebackType
from typing import BinaryIO, Self

_MAGIC = b"070701"
_END = "TRAILER!!!"


class CpioWriter:
    """Adds entries to an archive; directories above an entry are added as they are needed.

    A context manager: leaving it without an exception ends the archive.
    """

    def __init__(self, output: BinaryIO) -> None:
        self._output = output
        self._inode = 0
        self._names: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self._write(_END, mode=0, data=b"", links=1)

    def directory(self, name: str, mode: int = 0o755) -> None:
        """Add the directory `name` (no leading slash), unless it is there already."""
        if name in self._names:
            return
        self._parents(name)
        self._add(name, stat.S_IFDIR | mode, b"")

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Add the regular file `name`."""
        self._parents(name)
        self._add(name, stat.S_IFREG | mode, data)

    def symlink(self, name: str, target: str) -> None:
        """Add the symbolic link `name`, which points to `target`."""
        self._parents(name)
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, name: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Add a node for a character device."""
        self._parents(name)
        self._add(name, stat.S_IFCHR | mode, b"", device=(major, minor))

    def _parents(self, name: str) -> None:
        for parent in reversed(PurePosixPath(name).parents):
            if str(parent) != ".":
                self.directory(str(parent))

    def _add(self, name: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> None:
        if name.startswith("/") or name in self._names:
            raise ValueError(f"an archive name must be relative and new, got {name!r}")
        self._names.add(name)
        self._write(name, mode=mode, data=data, links=1, device=device)

    def _write(
        self, name: str, *, mode: int, data: bytes, links: int, device: tuple[int, int] = (0, 0)
    ) -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device of the file, device it stands for, name, checksum
        fields = (self._inode, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(encoded), 0)
        header = _MAGIC + b"".join(b"%08x" % field for field in fields)
        self._padded(header + encoded)
        self._padded(data)

    def _padded(self, data: bytes) -> None:
        self._output.write(data)
        self._output.write(b"\0" * (-len(data) % 4))
