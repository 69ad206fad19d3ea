"""Leases: who uses a run, kept by the kernel.

A lease is a shared `flock` on a file. It is free when the last process that holds it has ended, by whatever
signal; the keepers of VMs and the sweep of old runs wait for exactly that. Traps this module knows:

- a forked child would inherit the lease and keep it alive: it *closes* the descriptor at fork (unlocking it
  there would drop the parent's lock, which is the same one); exec closes it by O_CLOEXEC;
- `fcntl`/`lockf` locks would be lost with any close() of the file in the process: never used here;
- a file that was unlinked or moved away can still be locked: a lease counts only when its path leads to it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from pytest_maqet.deadline import Deadline, pauses
from pytest_maqet.errors import LockTimeout, StartError

#: How long a lease may be held exclusively by a sweep that looks whether it is free, in seconds.
PATIENCE = 10.0

_descriptors: set[int] = set()


def _close_in_child() -> None:
    for fd in _descriptors:
        with contextlib.suppress(OSError):
            os.close(fd)
    _descriptors.clear()


os.register_at_fork(after_in_child=_close_in_child)


class RunOver(StartError):
    """The file of a lease is gone, and with it its run."""


class Lease:
    """This process's share of a lease file; `take` or `join` makes one, `close` gives it back."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd: int | None = fd
        self._process = os.getpid()
        _descriptors.add(fd)

    @classmethod
    def take(cls, path: Path) -> Lease:
        """Take the lease, making its file (mode 0600) where there is none.

        Raises `RunOver` when its directory is gone, `LockTimeout` when a process holds it exclusively.
        """
        return cls._locked(path, os.O_CREAT)

    @classmethod
    def join(cls, path: Path) -> Lease:
        """Take a lease that others must have made already.

        Raises `RunOver` when the file is gone.
        """
        return cls._locked(path, 0)

    @classmethod
    def _locked(cls, path: Path, flags: int) -> Lease:
        for pause in pauses(Deadline.after(PATIENCE)):
            if lease := cls._try(path, flags):
                return lease
            # A sweep is looking whether the file is free: it lets go at once, or moves the file away.
            time.sleep(pause)
        raise LockTimeout(
            f"the lease {path} was held exclusively by another process for {PATIENCE:g} s",
            holder=None,
            hint="a sweep of old runs has it: is one stopped or hung?",
        )

    @classmethod
    def _try(cls, path: Path, flags: int) -> Lease | None:
        fd = _open(path, flags)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if _leads_to(path, fd):
                return cls(path, fd)
        except BlockingIOError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    @property
    def held(self) -> bool:
        """Whether this process holds the lease; False in a forked child."""
        return self._fd is not None and self._process == os.getpid()

    def fileno(self) -> int:
        """The descriptor that holds it. A child that inherits it across exec holds the lease as well."""
        assert self._fd is not None, "the lease was given back"
        return self._fd

    def close(self) -> None:
        """Give the lease back. Idempotent; nothing in a forked child."""
        if self._fd is None:
            return
        if self._process == os.getpid():
            _descriptors.discard(self._fd)
            os.close(self._fd)
        self._fd = None


@contextlib.contextmanager
def held_by_nobody(path: Path, *, make: bool = False) -> Iterator[bool]:
    """Whether nobody holds the lease, and nobody gets it during the block.

    False where there is no such file, unless `make` makes it.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if make else 0)
    try:
        fd = os.open(path, flags, 0o600)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
    finally:
        os.close(fd)


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
    except FileNotFoundError:
        raise RunOver(
            f"the run is over: its lease {path} is gone",
            hint="a test process that lives longer than its run cannot start or use VMs any more",
        ) from None
    except OSError as error:
        raise StartError(f"the lease {path} cannot be opened: {error.strerror}") from error


def _leads_to(path: Path, fd: int) -> bool:
    mine = os.fstat(fd)
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)
