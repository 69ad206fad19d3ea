"""The keeper: QEMU's parent, which ends it when its owner is gone.

There is one keeper for each VM, forked from its launcher's nursery (`keeper_nursery.py`), which runs this
file without the rest of the package; that only imports the file names below. A keeper

1. takes the lease of the VM's owner exclusively, without waiting: success means the owner is dead already;
2. starts QEMU, which the kernel kills when the keeper dies (`PR_SET_PDEATHSIG`), and reports its pid;
3. sleeps until QEMU ends (writes `exit`, *then* reaps: no `exit` file means the pid is still QEMU's),
   until the lease is free (nobody is left: ends QEMU, removes what is big, keeps what explains) or until
   SIGTERM (the owner is done with the VM: ends QEMU and removes nothing).

Facts: prctl(2), flock(2), fcntl(2), waitid(2), pidfd_open(2).
"""

from __future__ import annotations

import _thread
import fcntl
import os
import select
import signal

PID_FILE = "pid"
EXIT_FILE = "exit"
KEEP_FILE = "keep"
KEEPER_LOCK = "keeper.lock"
STDERR_LOG = "stderr.log"

#: What a lost VM leaves behind for nobody: disks, RAM, firmware variables. Sockets go as well.
VOLATILE = (".qcow2", ".raw", ".ram", ".state", ".iso", ".fd")
#: Room for the exit status, taken before QEMU starts so that a disk it fills cannot hide why it died.
EXIT_FILE_BYTES = 128

_PR_SET_PDEATHSIG = 1
#: Python ignores them, and an ignored signal stays ignored across exec.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_SOCKET_TYPE = 0o140000
_TYPE_MASK = 0o170000


class Job:
    """What to run, for whom, and where; all strings are bytes, so that no locale can come between."""

    def __init__(self, text: bytes, held: list[int]) -> None:
        """Take the fields apart; each ends with NUL, its first byte says what it is (several: a, e and f).

        `held` are the descriptors for QEMU, in the order of the numbers it knows them by.
        """
        fields = text.split(b"\0")[:-1]
        values: dict[bytes, list[bytes]] = {}
        for field in fields:
            values.setdefault(field[:1], []).append(field[1:])
        self.argv = values[b"a"]
        self.directory = values[b"d"][0]
        self.lease = values[b"l"][0]
        self.cwd = values[b"c"][0]
        self.env = dict(value.split(b"=", 1) for value in values.get(b"e", []))
        self.numbers = [int(value) for value in values.get(b"f", [])]
        self.held = held

    def path(self, name: str) -> bytes:
        """The path of a file in the VM's directory."""
        return os.path.join(self.directory, name.encode())  # noqa: PTH118


def start_qemu(job: Job) -> tuple[int, int]:
    """Fork and exec QEMU; returns its pid and a pipe that says the errno if the exec failed, else ends."""
    import ctypes  # here, for the processes that only want the names above; a nursery has loaded it

    libc = ctypes.CDLL(None)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    log = os.open(job.path(STDERR_LOG), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    failure, tell_failure = os.pipe()
    keeper = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != keeper:  # it died before prctl, which tells us nothing about the past
                os._exit(1)
            for number in _IGNORED_BY_PYTHON:
                libc.signal(number, None)
            # A group of its own, so that what QEMU itself starts can be ended with it.
            os.setpgid(0, 0)
            tell_failure = _out_of_the_way(tell_failure, job)
            _exec(job, null, log)
        except OSError as error:
            os.write(tell_failure, str(error.errno).encode())
        finally:
            os._exit(127)
    for fd in (null, log, tell_failure, *job.held):
        os.close(fd)
    return pid, failure


def _exec(job: Job, null: int, log: int) -> None:
    _make_room_for_descriptors(null)
    null, log, *held = (_out_of_the_way(fd, job) for fd in (null, log, *job.held))
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for fd, number in zip(held, job.numbers, strict=True):
        os.dup2(fd, number)
    os.chdir(job.cwd)
    os.execvpe(job.argv[0], job.argv, job.env)  # noqa: S606 - no shell is the point


def _make_room_for_descriptors(fd: int) -> None:
    """Have the kernel enlarge the table of descriptors to 1024, which outlives execve(2)."""
    # With several threads that takes a grace period of RCU (Linux fs/file.c): 13 ms at QEMU's 65th one.
    try:  # noqa: SIM105
        os.close(os.dup2(fd, 1023, inheritable=False))
    except OSError:  # RLIMIT_NOFILE is lower: then QEMU has to wait
        pass


def _out_of_the_way(fd: int, job: Job) -> int:
    """The same under a number that QEMU does not know another one by."""
    while fd in job.numbers:
        fd = os.dup(fd)
    return fd


class Keeper:
    """One running QEMU and the three things that can happen to it."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._pid = 0
        self._ended = False
        self._kept = False

    def run(self) -> None:
        """Start QEMU and stay until nobody needs its directory any more."""
        lease = os.open(self._job.lease, os.O_RDWR | os.O_CLOEXEC)
        if _lock_now(lease):
            _say(1, f"keeper nobody holds the lease {os.fsdecode(self._job.lease)}")
            return
        # A POSIX lock, because others can ask the kernel whose it is (F_GETLK). Any close() of the file in
        # this process would drop it: it is opened here and nowhere else.
        guard = os.open(self._job.path(KEEPER_LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            _say(1, "keeper another QEMU is running there already")
            return
        self._forget_the_last()
        self._pid, failure = start_qemu(self._job)
        signals = _signal_pipe()
        if answer := os.read(failure, 16):
            os.waitpid(self._pid, 0)
            self._write_exit(f'{{"code": null, "signal": null, "errno": {int(answer)}}}')
            _say(1, f"errno {int(answer)}")
            return
        os.close(failure)
        _write_new(self._job.path(PID_FILE + ".new"), f"{self._pid}\n")
        os.rename(self._job.path(PID_FILE + ".new"), self._job.path(PID_FILE))  # noqa: PTH104
        if not _say(1, f"pid {self._pid}"):
            self._end("its launcher gave up")
            return
        _close_stdio()
        self._watch(lease, signals)

    def _watch(self, lease: int, signals: int) -> None:
        nobody_left, tell = os.pipe()
        # Only now: PR_SET_PDEATHSIG means the thread that forked, and that has to be the main one.
        _thread.start_new_thread(_wait_for_lease, (lease, tell))
        qemu = os.pidfd_open(self._pid)
        poll = select.poll()
        for fd in (signals, nobody_left, qemu):
            poll.register(fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if qemu in ready:
                poll.unregister(qemu)
                self._record_exit(cause=None)
                if self._kept:
                    self._remove_volatile()
                    return
            if nobody_left in ready:
                poll.unregister(nobody_left)
                self._kept = not self._ended and os.path.lexists(self._job.path(KEEP_FILE))
                if not self._kept:
                    self._end("its owner was gone")
                    self._remove_volatile()
                    return
            if signals in ready:
                self._end("its owner was done with it")
                return

    def _end(self, cause: str) -> None:
        if not self._ended:
            os.kill(self._pid, signal.SIGKILL)  # safe: not reaped, so the pid is QEMU's
            self._record_exit(cause)

    def _record_exit(self, cause: str | None) -> None:
        found = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        assert found is not None
        if found.si_code == os.CLD_EXITED:
            text = f'{{"code": {found.si_status}, "signal": null}}'
        elif cause and found.si_status == signal.SIGKILL:
            text = f'{{"code": null, "signal": {found.si_status}, "cause": "{cause}"}}'
        else:
            text = f'{{"code": null, "signal": {found.si_status}}}'
        self._write_exit(text)
        try:  # noqa: SIM105
            os.killpg(self._pid, signal.SIGKILL)  # whatever QEMU had started itself
        except OSError:
            pass
        os.waitpid(self._pid, 0)
        self._ended = True

    def _forget_the_last(self) -> None:
        """Remove the records of an earlier QEMU in this directory (pid first), make room for our own."""
        for name in (PID_FILE, EXIT_FILE):
            try:  # noqa: SIM105
                os.unlink(self._job.path(name))  # noqa: PTH108
            except FileNotFoundError:
                pass
        _write_new(self._job.path(EXIT_FILE + ".new"), " " * EXIT_FILE_BYTES)

    def _write_exit(self, text: str) -> None:
        reserved = self._job.path(EXIT_FILE + ".new")
        try:
            fd = os.open(reserved, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.write(fd, text.ljust(EXIT_FILE_BYTES).encode())
            os.close(fd)
            os.rename(reserved, self._job.path(EXIT_FILE))  # noqa: PTH104
        except OSError as error:  # the directory was removed under us: nobody is left who could read it
            _say(2, f"the exit status {text} could not be written: {error}")

    def _remove_volatile(self) -> None:
        try:
            entries = list(os.scandir(self._job.directory))
        except OSError:
            return
        for entry in entries:
            try:
                is_socket = entry.stat(follow_symlinks=False).st_mode & _TYPE_MASK == _SOCKET_TYPE
                if is_socket or os.fsdecode(entry.name).endswith(VOLATILE):
                    os.unlink(entry.path)  # noqa: PTH108 - the link itself, never what it leads to
            except OSError as error:
                _say(2, f"{os.fsdecode(entry.name)} could not be removed: {error}")


def _lock_now(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_for_lease(lease: int, tell: int) -> None:
    fcntl.flock(lease, fcntl.LOCK_EX)
    # Every keeper of this lease waits in the same queue: let the next one through at once.
    os.close(lease)
    os.write(tell, b"!")


def _signal_pipe() -> int:
    """A descriptor that becomes readable when this process is asked to end."""
    ready, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return ready


def _write_new(path: bytes, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.write(fd, text.encode())
    os.close(fd)


def _say(fd: int, text: str) -> bool:
    """Whether somebody could hear it: not so when the launcher is gone, or the disk full."""
    try:
        os.write(fd, text.encode(errors="replace") + b"\n")
    except OSError:
        return False
    return True


def _close_stdio() -> None:
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for stream in (0, 1):
        os.dup2(null, stream)
    os.close(null)


def keep(text: bytes, held: list[int]) -> None:
    """Do a job (see `Job`), and say on stdout and in the log when it cannot be done."""
    try:
        Keeper(Job(text, held)).run()
    except OSError as error:
        _say(2, str(error))
        _say(1, f"keeper {error.strerror or error}")
