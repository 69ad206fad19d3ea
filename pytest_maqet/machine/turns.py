"""Who uses a VM that several processes share: many at once, or one alone.

Two lock files of the kernel's (flock), so that a process that dies gives its turn back. Users hold the *room*
shared; who wants it alone takes the *door* first, so that no new user can slip in before, and then the room.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from pytest_maqet.deadline import Deadline, pauses
from pytest_maqet.errors import LockTimeout
from pytest_maqet.runs.private_files import write_private
from pytest_maqet.runs.unshared import Unshared


class Turns:
    """This process's turn at one VM; not for use by several threads at once.

    `queueing` is a context manager around any waiting.
    """

    def __init__(
        self, door: Path, vm_name: str, queueing: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self._door = door
        self._queueing = queueing
        self._room = door.with_name(f"{door.name}.room")
        self._vm_name = vm_name
        self._shared: Unshared | None = None
        self._alone = 0

    @property
    def alone(self) -> bool:
        """Whether this process has the VM to itself."""
        return self._alone > 0

    @property
    def door(self) -> str | None:
        """What others wait at while this process uses the VM along with more; None while it does not."""
        return str(self._door) if self._shared is not None else None

    def share(self, timeout: float, owner: str) -> None:
        """Use the VM along with others, until `leave`; waits while somebody has it alone."""
        if self._shared is not None or self._alone:
            return
        deadline = Deadline.after(timeout)
        door = self._lock(self._door, fcntl.LOCK_SH, deadline, owner)
        try:
            self._shared = self._lock(self._room, fcntl.LOCK_SH, deadline, owner)
        finally:
            door.close()

    def leave(self) -> None:
        """Give up a shared turn. Idempotent."""
        if self._shared is not None:
            self._shared.close()
            self._shared = None

    @contextmanager
    def hold_alone(self, timeout: float, owner: str) -> Iterator[None]:
        """Have the VM alone for the body; may be nested. Raises LockTimeout naming who has it."""
        if self._alone:
            self._alone += 1
            try:
                yield
            finally:
                self._alone -= 1
            return
        deadline = Deadline.after(timeout)
        was_shared = self._shared is not None
        self.leave()  # else two that share and both want it alone would wait for each other
        door = self._lock(self._door, fcntl.LOCK_EX, deadline, owner)
        try:
            room = self._lock(self._room, fcntl.LOCK_EX, deadline, owner)
            try:
                self._say(owner)
                self._alone = 1
                yield
            finally:
                self._alone = 0
                if room.held:  # else this is a child that was forked in the body: the turn is its parent's
                    self._say("")
                    if was_shared:
                        fcntl.flock(room, fcntl.LOCK_SH)  # from alone to shared, with nobody in between
                        self._shared = room
                    else:
                        room.close()
        finally:
            door.close()

    def _lock(self, path: Path, kind: int, deadline: Deadline, owner: str) -> Unshared:
        lock = Unshared(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            if _lock_now(lock, kind):
                return lock  # as nearly always: nobody needs to know of a wait
            with self._queueing():
                for pause in pauses(deadline):
                    if _lock_now(lock, kind):
                        return lock
                    time.sleep(pause)  # a blocking flock has no deadline
        except BaseException:
            lock.close()
            raise
        lock.close()
        raise self._timed_out(deadline, owner)

    def _timed_out(self, deadline: Deadline, owner: str) -> LockTimeout:
        holder = None
        with suppress(OSError, ValueError):
            holder = json.loads(self._holder.read_text()).get("owner") or None
        who = f"{holder} has it alone" if holder else "other tests use it"
        return LockTimeout(
            f"{self._vm_name} was not free for {owner or 'this test'} within {deadline}: {who}",
            holder=holder,
            hint="wait longer (`timeouts: lock:`), or let the other test give the VM back sooner",
        )

    def _say(self, owner: str) -> None:
        with suppress(OSError):
            write_private(self._holder, json.dumps({"owner": owner}))

    @property
    def _holder(self) -> Path:
        return self._door.with_name(f"{self._door.name}.holder")


def _lock_now(lock: Unshared, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
