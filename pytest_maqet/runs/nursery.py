"""The nursery as the test process sees it: one for the process, started before the first VM needs it."""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from pytest_maqet.errors import StartError
from pytest_maqet.runs import keeper_nursery
from pytest_maqet.runs.child_environment import child_environment

#: How long a nursery may take to accept a job, in seconds; it takes a millisecond.
ACCEPT = 30.0
#: How long it may take to end when its socket is closed, in seconds.
END = 1.0


class NurseryGone(Exception):
    """The nursery is dead, killed by somebody; another one may be started."""


class Nursery:
    """A running nursery; `hand_over` may be called from any thread."""

    def __init__(self) -> None:
        """Start it, without waiting until it is ready. Raises `StartError` when no process can be started."""
        self._guard = threading.Lock()
        ours, its = socket.socketpair()
        script = Path(keeper_nursery.__file__)
        with its:
            try:
                # No stream of ours: a terminal or a pipe that a detached process holds open hangs its reader.
                self._child: subprocess.Popen[bytes] = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(script)],
                    stdin=its.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=child_environment(),
                    cwd="/",
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise StartError(
                    f"no process could be started for QEMU: {error.strerror}",
                    hint="is the limit of processes (ulimit -u), open files (ulimit -n) or memory reached?",
                ) from error
        ours.settimeout(ACCEPT)
        self._socket = ours

    @property
    def alive(self) -> bool:
        """Whether it can be given jobs."""
        return self._child.poll() is None

    @property
    def pid(self) -> int:
        """Its pid, for messages."""
        return self._child.pid

    def hand_over(self, text: bytes, fds: Sequence[int]) -> None:
        """Have a keeper forked for a job: its text, and the descriptors for its report, its log and QEMU.

        Raises `NurseryGone` when it is dead, or stopped and ended for that.
        """
        try:
            with self._guard:
                self._socket.sendall(keeper_nursery.HEADER.pack(len(text), len(fds)))
                done = 0
                for count in keeper_nursery.batches(len(fds)):
                    socket.send_fds(self._socket, [b"f"], fds[done : done + count])
                    done += count
                self._socket.sendall(text)
        except OSError as error:
            self.end()
            raise NurseryGone(str(error)) from error
        except BaseException:  # KeyboardInterrupt, or what pytest-timeout raises into us
            # Half a job is on its way, and would be the beginning of the next: this nursery gets no more.
            self.end()
            raise

    def end_if_stopped(self) -> None:
        """End it where somebody has stopped it (SIGSTOP), and would keep us waiting for ever."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            return
        if state in ("T", "t"):
            self.end()

    def end(self) -> None:
        """End it; its keepers go on. Idempotent."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # who sends stops before the number is another's
        self._close()
        if self._child.returncode is not None:
            return
        try:
            self._child.wait(END)
        except subprocess.TimeoutExpired:  # stopped: it does not see that its socket is closed
            self._child.kill()
            self._child.wait()

    def forget(self) -> None:
        """Give it up without ending it, as a forked child must: it ends when its last socket is closed."""
        self._close()
        self._child.returncode = 0  # nobody waits for it: no ResourceWarning about that

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()


class _Here:
    """What this process has of it."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.nursery: Nursery | None = None

    def let_go(self) -> None:
        """Give it up; it ends by itself."""
        if self.nursery is not None:
            self.nursery.forget()
            self.nursery = None

    def after_fork(self) -> None:
        """A forked child would keep the socket open, and so the nursery alive; the guard may be locked."""
        self.guard = threading.Lock()
        self.let_go()


_here = _Here()


def living_nursery() -> Nursery:
    """This process's nursery, started where there is none or where it was killed.

    Call it early: it is ready some 40 ms later, and a job waits for that. Raises `StartError`.
    """
    with _here.guard:
        if _here.nursery is not None and not _here.nursery.alive:
            _here.nursery.end()
            _here.nursery = None
        if _here.nursery is None:
            _here.nursery = Nursery()
        return _here.nursery


def end_nursery() -> None:
    """End this process's nursery, if it has one; the next VM starts another. Idempotent."""
    with _here.guard:
        nursery, _here.nursery = _here.nursery, None
    if nursery is not None:
        nursery.end()


os.register_at_fork(after_in_child=_here.after_fork)
atexit.register(_here.let_go)  # without waiting: leases are held as long as this process ends
