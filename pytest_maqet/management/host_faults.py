"""What the host could not give for a start, in words: disk space, files, processes, threads."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_maqet.errors import QemuDied, StartError
from pytest_maqet.runs.exit_status import ended_by_somebody

#: System errors that pass: they are the host's, not the VM's.
PASSING = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN}
    | {errno.EROFS}
)
#: Of these, those that no other hint is as good for.
_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN})
#: What Python says when the system gives no thread; the error has no number.
_NO_THREAD = "can't start new thread"


@contextmanager
def told(vm: str) -> Iterator[None]:
    """Raise StartError, which says what to do, where the block meets a fault of the host.

    Other errors go through: they are the suite's own, or ours.
    """
    try:
        yield
    except StartError as error:
        number = _in_words(error)
        if number in _LIMITS or (number is not None and error.hint is None):
            error.hint = _hint(number, None)
        raise
    except OSError as error:
        if error.errno not in PASSING:
            raise
        where = f": {error.filename}" if error.filename else ""
        raise StartError(
            f"{vm} could not be started: {error.strerror}{where}", hint=_hint(error.errno, error.filename)
        ) from error
    except RuntimeError as error:
        if _NO_THREAD not in str(error):
            raise
        raise StartError(
            f"{vm} could not be started: {os.strerror(errno.EAGAIN)} ({error})",
            hint=_hint(errno.EAGAIN, None),
        ) from error


@contextmanager
def run_is_there(run: Path) -> Iterator[None]:
    """Raise StartError that says so where the block fails for want of the run's directory."""
    try:
        yield
    except (FileNotFoundError, StartError) as error:
        if run.exists():
            raise
        raise StartError(
            f"the directory of this run, {run}, is gone: somebody removed it while the run goes on",
            passing=True,
            hint="does something clean up there while tests run? MAQET_RUN_BASE names another place",
        ) from error


def is_passing(error: BaseException) -> bool:
    """Whether an error, or one behind it, is a fault of the host's, by number or in the words of QEMU.

    So is a QEMU that somebody killed.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in PASSING:
            return True
        if isinstance(cause, StartError) and cause.passing:
            return True
        if isinstance(cause, QemuDied) and ended_by_somebody(cause.code, cause.signal, cause.stderr):
            return True
        cause = cause.__cause__ or cause.__context__
    return _in_words(error) is not None


def _in_words(error: BaseException) -> int | None:
    """The number of a fault that a keeper, qemu-img or QEMU has told in the system's words."""
    return next((number for number in sorted(PASSING) if os.strerror(number) in str(error)), None)


def _hint(number: int | None, file: str | bytes | int | None) -> str:
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"{_what_is_full(file)}: make room there, or name a directory elsewhere in MAQET_RUN_BASE"
    if number == errno.EFBIG:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        of_process = f"a file may have {limit} bytes here (`ulimit -f`)" if limit > 0 else ""
        return f"{of_process or 'the file system takes no file of that size'}, and a VM has larger ones"
    if number == errno.EMFILE:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return (
            f"this process may have {limit} files open (`ulimit -n`), and each VM takes about 20: raise "
            "that, or keep fewer VMs at once"
        )
    if number == errno.ENFILE:
        return "the host has as many files open as it may (sysctl fs.file-max)"
    if number == errno.EAGAIN:
        limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
        of_user = f"this user may have {limit} processes and threads (`ulimit -u`)" if limit > 0 else ""
        return (
            f"{of_user or 'no process or thread can be made'}; a container's limit is pids.max of its cgroup"
        )
    if number == errno.ENOMEM:
        return "the host has not enough free memory: run fewer VMs at once"
    return "name a directory that can be written in MAQET_RUN_BASE or MAQET_CACHE_DIR"


def _what_is_full(file: str | bytes | int | None) -> str:
    """A disk, or its table of inodes."""
    if not isinstance(file, str):
        return "a disk is full"
    folder = next((one for one in (Path(file), *Path(file).parents) if one.is_dir()), Path("/"))
    try:
        found = os.statvfs(folder)
    except OSError:
        return f"the disk of {folder} is full"
    if found.f_files and not found.f_favail:
        return f"the file system of {folder} has no inodes left"
    return f"the disk of {folder} is full ({found.f_bavail * found.f_frsize >> 10} KiB free)"
