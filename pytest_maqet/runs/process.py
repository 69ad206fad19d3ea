"""A QEMU process: started under a keeper, known by pidfd, its exit status readable by every user."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_maqet.deadline import Deadline, pauses
from pytest_maqet.errors import NotSupported, QemuDied, StartError
from pytest_maqet.masking import masked
from pytest_maqet.runs.bounded_log import last_bytes
from pytest_maqet.runs.child_environment import child_environment
from pytest_maqet.runs.exit_status import UNKNOWN, Exit, read_exit
from pytest_maqet.runs.keeper_process import KILLED, Job, KeeperProcess, readable
from pytest_maqet.runs.lock_holders import lock_holder, open_holder
from pytest_maqet.runs.vm_directory import VmDirectory

#: How long the keeper may take to write the exit status of a QEMU that is dead, in seconds.
EXIT_RECORDED = 1.0
#: How many bytes of QEMU's stderr an error carries.
STDERR_TAIL = 4000


class QemuProcess:
    """A handle on one QEMU; `launch` makes it for the owner, `attach` for another user of the same VM.

    Not valid in a forked child.
    """

    def __init__(self, directory: VmDirectory, pid: int, pidfd: int, keeper: KeeperProcess) -> None:
        self.directory = directory
        self.pid = pid
        self._pidfd = pidfd
        self._keeper = keeper
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        self._exit: Exit | None = None

    @classmethod
    def launch(
        cls,
        argv: Sequence[str],
        directory: VmDirectory,
        lease: Path,
        *,
        pass_fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> QemuProcess:
        """Start QEMU under a new keeper, and return as soon as it is executed.

        A directory may be used again after its last QEMU was dismissed: the new records replace the old ones.
        It ends at the latest when nobody holds `lease` any more; the caller must hold it now. QEMU gets the
        descriptors `pass_fds` under their numbers and no others, /dev/null as stdin, the stderr log as stdout
        and stderr, the environment `env` (None: `child_environment`) and the working directory `cwd`
        (None: the VM's).

        Raises `StartError` when it cannot be executed or nobody holds the lease.
        """
        job = Job(
            argv,
            directory,
            lease,
            pass_fds,
            child_environment() if env is None else env,
            cwd or directory.path,
        )
        keeper, pid = KeeperProcess.launch(job)
        try:
            return cls(directory, pid, _open_launched(directory, pid), keeper)
        except BaseException:
            keeper.end(0)
            keeper.close()
            raise

    @classmethod
    def attach(cls, directory: VmDirectory) -> QemuProcess:
        """A handle on the QEMU that another process launched in that directory.

        Raises `QemuDied` with how it ended when it is dead, `StartError` when none was ever started there.
        """
        pid = _recorded_pid(directory)
        if pid is None:
            raise StartError(f"no QEMU was started in {directory.path}")
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            raise _died(directory) from None
        # In this order: with the keeper alive and no exit written *after* the pidfd was opened, the pid was
        # still QEMU's then, because the keeper reaps only after it wrote. The pid is read again for the case
        # that a new QEMU was started in the directory meanwhile.
        keeper = KeeperProcess.find(directory)
        if keeper is not None and read_exit(directory) is None and _recorded_pid(directory) == pid:
            return cls(directory, pid, pidfd, keeper)
        os.close(pidfd)
        if keeper is not None:
            keeper.close()
        raise _died(directory)

    def fileno(self) -> int:
        """A descriptor that becomes readable when QEMU is dead. Raises ValueError after `close`."""
        self._check_process()
        if self._closed:
            raise ValueError(f"the handle on QEMU {self.pid} is closed")
        return self._pidfd

    def exit(self) -> Exit | None:
        """How QEMU ended; None while it lives (and after `close`, if nobody had asked before).

        Waits up to 1 s for its keeper to write it down.
        """
        self._check_process()
        if self._exit is None and not self._closed and readable(self._pidfd, 0):
            self._exit = _recorded(self.directory)
        return self._exit

    def kill(self) -> None:
        """End QEMU at once, as a power cut would. Does nothing when it is dead."""
        if readable(self.fileno(), 0):
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def dismiss(self, timeout: float) -> Exit | None:
        """The owner is done with the VM: end QEMU and its keeper, and say how QEMU ended. Idempotent.

        By force after `timeout` seconds. Removes nothing. None only if QEMU cannot even be killed (it hangs
        in the kernel).
        """
        self._check_process()
        with self._lock:
            if not self._closed:
                self._keeper.end(timeout)
                readable(self._pidfd, KILLED)
                _end_stray(self.directory)
            return self.exit()

    def close(self) -> None:
        """Give up the handle; a QEMU that was not dismissed lives on. Idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._pidfd)
                self._keeper.close()

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise NotSupported(
                f"QEMU {self.pid} belongs to process {self._process}, not to this forked child",
                hint="use the VM in the process whose fixture started it, or in a thread of that",
            )


def _end_stray(directory: VmDirectory) -> None:
    """End a QEMU that has outlived its keeper, as below a wrapper (`binary:`) that was killed with that."""
    if lock_holder(directory.keeper_lock) is not None:
        return  # the next QEMU in this directory
    stray = open_holder(directory.qemu_pid_file)
    if stray is None:
        return
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(stray, signal.SIGKILL)
        readable(stray, KILLED)
    finally:
        os.close(stray)


def _recorded_pid(directory: VmDirectory) -> int | None:
    try:
        return int(directory.pid_file.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def _open_launched(directory: VmDirectory, pid: int) -> int:
    """A pidfd of the QEMU just launched; something that is always readable when it is dead already."""
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        if read_exit(directory) is None:
            return pidfd
        os.close(pidfd)  # reaped, maybe, and then the pid may be someone else's
    return os.eventfd(1, os.EFD_CLOEXEC)


def _recorded(directory: VmDirectory) -> Exit:
    """How the QEMU of that directory, which is dead, ended."""
    for pause in pauses(Deadline.after(EXIT_RECORDED)):
        if found := read_exit(directory):
            return found
        if lock_holder(directory.keeper_lock) is None:
            break
        time.sleep(pause)
    return read_exit(directory) or UNKNOWN


def _died(directory: VmDirectory) -> QemuDied:
    found = _recorded(directory)
    try:
        # More than is shown is searched for secrets: half of one would not be found.
        text = last_bytes(directory.stderr_log, 4 * STDERR_TAIL).decode(errors="replace").strip()
        said = masked(text)[-STDERR_TAIL:]
    except OSError:
        said = ""
    return QemuDied(
        f"the QEMU of {directory.path} is dead: it {found.reason}"
        + (f"\nits stderr:\n{said}" if said else ""),
        code=found.code,
        signal=found.signal,
        stderr=said,
    )
