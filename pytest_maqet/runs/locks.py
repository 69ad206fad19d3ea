"""Locks between the processes of a host, which say who has them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import filelock

from pytest_maqet.errors import LockTimeout

#: How often a waiting process looks whether the lock is free, in seconds. Looking costs 0.1 ms.
POLL = 0.02

# While it waits, filelock writes 40 debug records a second, which a test with `log_level = DEBUG` would show.
if (_logger := logging.getLogger("filelock")).level == logging.NOTSET:
    _logger.setLevel(logging.INFO)


@contextlib.contextmanager
def held_lock(path: Path, *, timeout: float, what: str, owner: str) -> Iterator[None]:
    """Hold the lock `path` for the body, against every other process and thread that takes it.

    `what` says what it protects ("the start of VM 'web'"), `owner` who we are ("gw0, test_a.py::test_b"):
    other processes read that when they wait in vain. Waits at most `timeout` seconds, then raises
    `LockTimeout`, which names the holder. A holder that dies frees the lock at once.
    """
    lock = filelock.FileLock(path, mode=0o600, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(timeout=timeout, poll_interval=POLL)
    except filelock.Timeout:
        raise _timeout(path, timeout, what) from None
    record = _record_path(path)
    try:
        _write(record, owner)
        yield
    finally:
        # Before the release: afterwards the record would be the next holder's.
        with contextlib.suppress(OSError):
            record.unlink(missing_ok=True)
        lock.release()


def remove_lock(path: Path) -> bool:
    """Remove the file of a lock that nobody holds; whether it is gone.

    Whoever waits for it takes a new file then: filelock looks whether the one it has locked still has a name.
    """
    try:
        with filelock.FileLock(path, timeout=0, mode=0o600, thread_local=False, fallback_to_soft=False):
            _record_path(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
    except (filelock.Timeout, OSError):
        return False
    return True


def lock_owner(path: Path) -> str | None:
    """Who says to hold the lock `path`, in words, or None. Only a wait that failed proves that it is held."""
    try:
        found = json.loads(_record_path(path).read_text())
        held = max(0.0, time.time() - found["since"])
        return f"{found['owner']} (process {found['pid']}, for {held:.1f} s)"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _timeout(path: Path, timeout: float, what: str) -> LockTimeout:
    holder = lock_owner(path)
    return LockTimeout(
        f"{what} was locked for all of {timeout:g} s by {holder or 'a process that did not say who it is'}",
        holder=holder,
        hint=f"wait longer (`timeouts: lock:`), or look at what that process does; the lock is {path}",
    )


def _record_path(path: Path) -> Path:
    return path.with_name(path.name + ".holder")


def _write(record: Path, owner: str) -> None:
    """Say who we are; without that the lock is worth as much (a full disk, say)."""
    text = json.dumps({"owner": owner, "pid": os.getpid(), "since": time.time()})
    new = record.with_name(record.name + ".new")
    with contextlib.suppress(OSError):
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(text)
        new.replace(record)
