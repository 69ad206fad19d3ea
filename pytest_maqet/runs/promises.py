"""The books of memory: what VMs of this user have been promised, and who waits for some.

A promise is a file in its run's directory with a shared lock (`leases`) that its owner holds, and QEMU as
well, which inherits the descriptor: whatever kills them, the promise is over when the last of them is gone. A
wish is such a file of a process that waits for memory, a turn one of a process that waits for a VM that
others use. All runs below one base directory are read together; whoever reads or writes holds the lock of
that directory, for a moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from pytest_maqet.deadline import Deadline, pauses
from pytest_maqet.errors import LockTimeout
from pytest_maqet.host_memory import own_memory
from pytest_maqet.runs.leases import Lease
from pytest_maqet.runs.lock_holders import is_locked, kill_holder, lock_holder
from pytest_maqet.runs.vm_directory import VmDirectory

#: The directory in a run's, and how its files end.
FOLDER, SUFFIX = "memory", ".promise"
#: How long another process may hold the books, in seconds; it takes a millisecond.
PATIENCE = 30.0

#: "vm": ends with its owner's test or scope. "run": with the whole run. "spare": nobody has asked for it yet;
#: "evicted": was a spare, and goes. "wish": no promise, but somebody who waits for one. "turn": one who
#: waits until a VM that workers share is free for him.
Kind = Literal["vm", "run", "spare", "evicted", "wish", "turn"]


@dataclass(frozen=True)
class Entry:
    """One line of the books.

    `memory` is the guest's, `whole` with what QEMU itself takes, both in bytes. `owner` says who it is in
    words, `process` which process, by a token. `directories` are those of the QEMUs that were started on it.
    `since` is in seconds of a clock that all processes of the host share. `doors` are locks of VMs that
    workers share (`machine.turns`): with a wish, of those that its process uses; with a turn, of the one that
    it waits for.
    """

    vm: str
    memory: int
    whole: int
    owner: str
    process: str
    kind: Kind
    since: float
    directories: tuple[str, ...] = ()
    doors: tuple[str, ...] = ()
    path: Path = Path()

    @property
    def run(self) -> Path:
        """The run it belongs to."""
        return self.path.parent.parent

    @property
    def open(self) -> int:
        """Bytes that were promised and are not used yet, so that the kernel still calls them available."""
        return max(0, self.whole - sum(own_memory(pid) for pid in self.pids))

    @property
    def pids(self) -> tuple[int, ...]:
        """Its living QEMUs."""
        holders = (lock_holder(VmDirectory(Path(one)).qemu_pid_file) for one in self.directories)
        return tuple(pid for pid in holders if pid is not None)

    @property
    def over(self) -> bool:
        """Whether all QEMUs that were started on it have ended; False before the first.

        One that is only about to start counts: its keeper has written nothing yet.
        """
        return bool(self.directories) and all(_has_ended(VmDirectory(Path(one))) for one in self.directories)

    def kill(self) -> None:
        """End its QEMUs."""
        for directory in self.directories:
            kill_holder(VmDirectory(Path(directory)).qemu_pid_file)


class Promise:
    """An entry of our own; given back by `close`, and by the end of the process."""

    def __init__(self, path: Path, lease: Lease) -> None:
        self.path = path
        self._lease = lease

    def fileno(self) -> int:
        """The descriptor that holds it. A QEMU that inherits it holds the promise as well."""
        return self._lease.fileno()

    def close(self) -> None:
        """Give it back. Idempotent; a QEMU that has it keeps it."""
        self._lease.close()


class Books:
    """The books of one base directory, opened by one process of a run."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.process = f"{os.getpid()}-{secrets.token_hex(4)}"

    @contextlib.contextmanager
    def opened(self, patience: float | None = None) -> Iterator[list[Entry]]:
        """All living entries; nobody else reads or writes during the block.

        Raises LockTimeout when another process does not let go of the books within `patience` seconds
        (None: `PATIENCE`).
        """
        # The directory itself is what is locked: no file would have to be made, or be left.
        fd = os.open(self.run.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _lock(fd, self.run.parent, PATIENCE if patience is None else patience)
            try:
                yield self._living()
            finally:
                fcntl.flock(fd, fcntl.LOCK_UN)  # a child that was forked meanwhile has the descriptor, too
        finally:
            os.close(fd)

    def write(self, entry: Entry) -> tuple[Promise, Entry]:
        """Make a new entry, while the books are open. Raises OSError on a full disk, and RunOver."""
        folder = self.run / FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        entry = replace(entry, path=folder / f"{secrets.token_hex(6)}{SUFFIX}")
        lease = Lease.take(entry.path)
        try:
            _store(entry)
        except BaseException:
            lease.close()
            entry.path.unlink(missing_ok=True)
            raise
        return Promise(entry.path, lease), entry

    def change(self, entry: Entry) -> None:
        """Store what is different now in an entry, while the books are open."""
        _store(entry)

    def _living(self) -> list[Entry]:
        found = []
        for path in sorted(self.run.parent.glob(f"*/{FOLDER}/*{SUFFIX}")):
            if _is_held(path) and (entry := _read(path)) is not None:
                found.append(entry)
        return found


def _has_ended(directory: VmDirectory) -> bool:
    if directory.exit_file.exists() or not directory.path.exists():
        return True
    return directory.keeper_lock.exists() and not is_locked(directory.keeper_lock)


def now() -> float:
    """The clock of `Entry.since`."""
    return time.monotonic()  # Linux: the same for all processes since boot, clock_gettime(2)


def _lock(fd: int, base: Path, patience: float) -> None:
    for pause in pauses(Deadline.after(patience)):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(min(pause, 0.02))
        else:
            return
    raise LockTimeout(
        f"the books of promised memory in {base} were in use for all of {patience:g} s",
        hint="is a test process of this user stopped (Ctrl-Z, a debugger)? `lslocks` shows who has the lock",
    )


def _is_held(path: Path) -> bool:
    """Whether anybody holds the promise; one that nobody holds is removed."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        with contextlib.suppress(OSError):
            path.unlink()
        return False
    finally:
        os.close(fd)


def _read(path: Path) -> Entry | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found["directories"], found["doors"] = tuple(found["directories"]), tuple(found["doors"])
        return Entry(**found, path=path)
    except (OSError, ValueError, TypeError, KeyError):
        return None  # its maker is dead, or the disk was full


def _store(entry: Entry) -> None:
    record = asdict(entry)
    del record["path"]
    # Written in place: the lock belongs to this very file. Nobody reads it meanwhile.
    entry.path.write_text(json.dumps(record), encoding="utf-8")
