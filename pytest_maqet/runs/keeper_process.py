"""A keeper as its launcher (or another user of the VM) sees it: started, given its job, ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import StartError
from pytest_maqet.runs.lock_holders import open_holder
from pytest_maqet.runs.nursery import NurseryGone, living_nursery
from pytest_maqet.runs.vm_directory import VmDirectory

#: How long a keeper may take to say that QEMU runs, in seconds; it takes some milliseconds.
REPORT = 30.0
#: How often a keeper is asked for, before one that ends without a word is a failure.
TRIES = 3
#: After this time without a word somebody looks why, in seconds.
SILENCE = 1.0
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
        return b"".join(field + b"\0" for field in fields)


class KeeperProcess:
    """A running keeper, known by pidfd."""

    def __init__(self, pidfd: int) -> None:
        self._pidfd = pidfd
        self._closed = False

    @classmethod
    def launch(cls, job: Job) -> tuple[KeeperProcess, int]:
        """Start a keeper that runs `job`; returns it and the pid of the QEMU that it executed.

        Raises `StartError` when QEMU could not be executed, with the system's reason.
        """
        if clash := [fd for fd in job.pass_fds if fd <= 2]:
            raise ValueError(f"QEMU's standard streams are not for passing: {clash}")
        text = job.encoded()
        try:
            # Not a word: the keeper was killed, or the nursery before it had forked one.
            answers = (_answer(text, job) for _ in range(TRIES))
            answer = next((answer for answer in answers if answer is not None), None)
            found = cls.find(job.directory) if isinstance(answer, int) else None
        except BaseException:  # also KeyboardInterrupt and what pytest-timeout raises into us
            # One that has not reported yet finds that nobody listens, and gives up by itself.
            if late := cls.find(job.directory):
                late.end(0)
                late.close()
            raise
        if isinstance(answer, StartError):
            raise answer
        if answer is None or found is None:
            raise StartError(
                f"QEMU was not started: its keeper ended without a word{_last_words(job)}",
                passing=True,
                hint="was it killed, for lack of memory maybe (see dmesg), or is `ulimit -n` reached?",
            )
        return found, answer

    @classmethod
    def find(cls, directory: VmDirectory) -> KeeperProcess | None:
        """The living keeper of that VM, or None."""
        pidfd = open_holder(directory.keeper_lock)
        return None if pidfd is None else cls(pidfd)

    def end(self, timeout: float) -> None:
        """Let it end QEMU and itself; by force after `timeout` seconds. Idempotent."""
        if self._closed:
            return
        self._signal(signal.SIGTERM)
        if not readable(self._pidfd, timeout):
            # Stopped or stuck: QEMU goes with it, the kernel sees to that.
            self._signal(signal.SIGKILL)
            readable(self._pidfd, KILLED)

    def close(self) -> None:
        """Give up the handle; the keeper goes on. Idempotent."""
        if self._closed:
            return
        self._closed = True
        os.close(self._pidfd)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)


def readable(fd: int, timeout: float) -> bool:
    """Whether the descriptor becomes readable (for a pidfd: the process is dead) within `timeout` seconds."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0.0, timeout) * 1000))


def _answer(text: bytes, job: Job) -> int | StartError | None:
    """Have a keeper forked: QEMU's pid, or why it does not run; None when the keeper ends without a word.

    Raises `StartError` when none could be forked, or it says nothing for too long.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    with contextlib.ExitStack() as ours:
        try:
            log = os.open(job.directory.keeper_log, flags, 0o600)
            ours.callback(os.close, log)
            report, tell = os.pipe()
            ours.callback(os.close, report)
        except OSError as error:
            raise StartError(f"{job.directory.keeper_log} cannot be written: {error.strerror}") from error
        try:
            nursery = living_nursery()
            nursery.hand_over(text, (tell, log, *dict.fromkeys(job.pass_fds)))
        except NurseryGone:
            return None
        finally:
            os.close(tell)  # ours: the end of the report is the end of the keeper's
        kind, _, value = _line(report, nursery.end_if_stopped).partition(" ")
    if not kind:
        nursery.end()
        return None
    if kind == "pid":
        return int(value)
    return _failure(kind, value, job)


def _line(fd: int, on_silence: Callable[[], None]) -> str:
    deadline = Deadline.after(REPORT)
    text = b""
    while not text.endswith(b"\n"):
        if not readable(fd, min(SILENCE, deadline.remaining)):
            if deadline.expired:
                raise StartError(
                    f"the keeper of a new VM said nothing for {deadline}", hint="is the machine overloaded?"
                )
            on_silence()
            continue
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
        # One that was killed a moment ago may still have its lock.
        passing = value.startswith("another QEMU")
        return StartError(f"QEMU could not be started in {job.directory.path}: {value}", passing=passing)
    return StartError(f"QEMU was not started: its keeper said {kind} {value}{_last_words(job)}")


def _last_words(job: Job) -> str:
    try:
        said = job.directory.keeper_log.read_text(errors="replace").strip()
    except OSError:
        said = ""
    return f": {said}" if said else ""
