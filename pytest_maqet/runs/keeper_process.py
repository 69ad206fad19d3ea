"""A keeper as its launcher (or another user of the VM) sees it: started, given its job, ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import StartError
from pytest_maqet.runs import keeper
from pytest_maqet.runs.child_environment import child_environment
from pytest_maqet.runs.lock_holders import open_holder
from pytest_maqet.runs.vm_directory import VmDirectory

#: How long a keeper may take to say that QEMU runs, in seconds; it takes about 0.03 s.
REPORT = 30.0
#: How long a killed process may take to be gone, in seconds.
KILLED = 2.0


@dataclass(frozen=True)
class Job:
    """What a keeper is to run: see `QemuProcess.launch` for the fields."""

    argv: Sequence[str]
    directory: VmDirectory
    lease: Path
    pass_fds: Sequence[int]
    env: Mapping[str, str]
    cwd: Path

    def encoded(self) -> bytes:
        """The job in the keeper's format (see `keeper.Job`). Raises `StartError` for a NUL in it."""
        fields = [b"a" + os.fsencode(argument) for argument in self.argv]
        fields += [b"d" + os.fsencode(self.directory.path), b"l" + os.fsencode(self.lease)]
        fields += [b"c" + os.fsencode(self.cwd)]
        fields += [b"f%d" % fd for fd in dict.fromkeys(self.pass_fds)]
        fields += [b"e" + os.fsencode(f"{name}={value}") for name, value in self.env.items()]
        for field in fields:
            if b"\0" in field:
                raise StartError(f"QEMU cannot be given a NUL character: {os.fsdecode(field[1:])!r}")
        return b"\0".join([*fields, keeper.END_OF_JOB])


class KeeperProcess:
    """A running keeper, known by pidfd."""

    def __init__(self, pidfd: int, child: subprocess.Popen[bytes] | None) -> None:
        self._pidfd = pidfd
        self._child = child
        self._closed = False

    @classmethod
    def launch(cls, job: Job) -> tuple[KeeperProcess, int]:
        """Start a keeper that runs `job`; returns it and the pid of the QEMU that it executed.

        Raises `StartError` when QEMU could not be executed, with the system's reason.
        """
        text = job.encoded()
        child = _spawn(job)
        try:
            pid = _pid_reported(child, text, job)
            return cls(os.pidfd_open(child.pid), child), pid
        except BaseException:  # also KeyboardInterrupt and what pytest-timeout raises into us
            child.kill()  # the kernel ends QEMU with it
            child.wait()
            raise
        finally:
            for pipe in (child.stdin, child.stdout):
                _close(pipe)

    @classmethod
    def find(cls, directory: VmDirectory) -> KeeperProcess | None:
        """The living keeper of that VM, or None."""
        pidfd = open_holder(directory.keeper_lock)
        return None if pidfd is None else cls(pidfd, None)

    def end(self, timeout: float) -> None:
        """Let it end QEMU and itself; by force after `timeout` seconds. Idempotent."""
        if self._closed:
            return
        self._signal(signal.SIGTERM)
        if not readable(self._pidfd, timeout):
            # Stopped or stuck: QEMU goes with it, the kernel sees to that.
            self._signal(signal.SIGKILL)
            readable(self._pidfd, KILLED)
        self._reap()

    def close(self) -> None:
        """Give up the handle; the keeper goes on. Idempotent."""
        if self._closed:
            return
        self._reap()
        if self._child is not None and self._child.returncode is None:
            self._child.returncode = 0  # left to itself on purpose: no ResourceWarning about it
        self._closed = True
        os.close(self._pidfd)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def _reap(self) -> None:
        if self._child is not None and self._child.poll() is None and readable(self._pidfd, 0):
            self._child.wait()


def readable(fd: int, timeout: float) -> bool:
    """Whether the descriptor becomes readable (for a pidfd: the process is dead) within `timeout` seconds."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0.0, timeout) * 1000))


def _spawn(job: Job) -> subprocess.Popen[bytes]:
    if clash := [fd for fd in job.pass_fds if fd <= 2]:
        raise ValueError(f"QEMU's standard streams are not for passing: {clash}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    try:
        log = os.open(job.directory.keeper_log, flags, 0o600)
    except OSError as error:
        raise StartError(f"{job.directory.keeper_log} cannot be written: {error.strerror}") from error
    try:
        # No stream of ours: a terminal or a pipe that a detached process holds open hangs whoever reads it.
        return subprocess.Popen(
            [sys.executable, "-I", "-S", keeper.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=child_environment(),
            cwd="/",
            pass_fds=tuple(job.pass_fds),
            start_new_session=True,
        )
    except OSError as error:
        raise StartError(
            f"no process could be started for QEMU: {error.strerror}",
            hint="is the limit of processes (ulimit -u), open files (ulimit -n) or memory reached?",
        ) from error
    finally:
        os.close(log)


def _pid_reported(child: subprocess.Popen[bytes], text: bytes, job: Job) -> int:
    assert child.stdin is not None
    assert child.stdout is not None
    # A keeper that is dead already: its silence below says the same.
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(text)
        child.stdin.close()
    kind, _, value = _line(child.stdout.fileno()).partition(" ")
    if kind == "pid":
        return int(value)
    raise _failure(kind, value, job)


def _line(fd: int) -> str:
    deadline = Deadline.after(REPORT)
    text = b""
    while not text.endswith(b"\n"):
        if not readable(fd, deadline.remaining):
            raise StartError(
                f"the keeper of a new VM said nothing for {deadline}", hint="is the machine overloaded?"
            )
        chunk = os.read(fd, 4096)
        if not chunk:
            break
        text += chunk
    return text.decode(errors="replace").rstrip("\n")


def _failure(kind: str, value: str, job: Job) -> StartError:
    if kind == "errno":
        return StartError(
            f"QEMU could not be executed: {job.argv[0]} (in {job.cwd}): {os.strerror(int(value))}",
            hint="`binary:` in the configuration names the QEMU to run",
        )
    if kind == "keeper":
        return StartError(f"QEMU could not be started in {job.directory.path}: {value}")
    try:
        said = job.directory.keeper_log.read_text(errors="replace").strip()
    except OSError:
        said = ""
    return StartError(
        f"QEMU was not started: its keeper ended without a word{': ' + said if said else ''}",
        hint=f"nobody holds the lease {job.lease}, or the keeper was killed" if not said else None,
    )


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
