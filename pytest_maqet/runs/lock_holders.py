"""Whose a POSIX lock is, and the process behind it: the only way in which a pid is ever judged."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
from pathlib import Path

#: struct flock of 64-bit Linux: type, whence, (padding) start, length, pid. fcntl(2).
_FLOCK = struct.Struct("hhxxxxqqixxxx")


def is_locked(path: Path) -> bool:
    """Whether a process holds a POSIX lock on the file, also one that has no pid here.

    Processes of another container (PID namespace) have none, and may use the same directory.
    """
    return _ask(path) is not None


def lock_holder(path: Path) -> int | None:
    """The pid of the process that holds a POSIX lock on the file, or None (a zombie holds none).

    None, too, where it has no pid here (see `is_locked`). Does not lock, and must not be asked about a file
    that this process itself has a POSIX lock on: closing it here would drop that lock.
    """
    return _ask(path) or None


def _ask(path: Path) -> int | None:
    """The pid of who holds a lock on the file, 0 for one that has no pid here, None for nobody."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, question))
    finally:
        os.close(fd)
    return None if kind == fcntl.F_UNLCK else max(0, int(pid))


def kill_holder(path: Path) -> None:
    """Kill the process that holds a POSIX lock on the file, if one does."""
    holder = open_holder(path)
    if holder is None:
        return
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(holder, signal.SIGKILL)
    finally:
        os.close(holder)


def open_holder(path: Path) -> int | None:
    """A pidfd of the process that holds a POSIX lock on the file, or None.

    Asked again after the pidfd is open: a pid that went to another process in between is not taken for it.
    """
    pid = lock_holder(path)
    if pid is None:
        return None
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if lock_holder(path) == pid:
        return fd
    os.close(fd)
    return None
