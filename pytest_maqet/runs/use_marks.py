"""Who uses a file of the host's cache: a lease beside it, held by a process from its first use on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

from pytest_maqet.runs.leases import Lease, held_by_nobody

#: The ending of a mark's name; its modification time says when the file was used last.
SUFFIX = ".use"
#: struct flock of 64-bit Linux: type, whence, (padding) start, length, pid, which must be 0 (fcntl(2)).
_FLOCK = struct.Struct("hhxxxxqqixxxx")

_held: dict[Path, Lease] = {}
_guard = threading.Lock()


def mark_used(path: Path) -> None:
    """This process uses `path` until it ends; to be called before it is looked whether `path` is there.

    Raises what `Lease.take` raises.
    """
    mark = _mark(path)
    with _guard:
        lease = _held.get(mark)
        if lease is None or not lease.held:
            _held[mark] = Lease.take(mark)
    with contextlib.suppress(OSError):
        os.utime(mark)


def last_used(path: Path) -> float:
    """When `path` was used last, in seconds since the epoch."""
    for file in (_mark(path), path):
        with contextlib.suppress(OSError):
            return file.lstat().st_mtime
    return 0.0


@contextlib.contextmanager
def unused(path: Path) -> Iterator[bool]:
    """Whether no process uses `path`, for the time of the block; whoever wants to use it waits for its end.

    A QEMU that has it open as an image uses it too: it holds a lock of its own on it.
    """
    with held_by_nobody(_mark(path), make=True) as free:
        yield free and not _locked_by_qemu(path)


def is_unused(path: Path) -> bool:
    """As `unused`, at this moment, and nobody is kept waiting; makes no file."""
    if os.path.lexists(_mark(path)):
        with unused(path) as free:
            return free
    return not _locked_by_qemu(path)


def forget(path: Path) -> None:
    """Remove the mark of a file that is gone; only within `unused`."""
    with contextlib.suppress(OSError):
        _mark(path).unlink()


def _mark(path: Path) -> Path:
    return path.with_name(path.name + SUFFIX)


def _locked_by_qemu(path: Path) -> bool:
    """QEMU locks bytes of an image for as long as it has it open (its docs/system/images, "locking")."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, question))[0]
    except OSError:
        return False
    finally:
        os.close(fd)
    return bool(kind != fcntl.F_UNLCK)
