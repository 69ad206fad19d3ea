"""Launching, attaching, exit statuses, descriptors and what happens when it goes wrong."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from run_processes import SLEEP, Watched, eventually, keeper_pid

from pytest_maqet.errors import NotSupported, QemuDied, StartError
from pytest_maqet.runs import keeper
from pytest_maqet.runs.exit_status import read_exit
from pytest_maqet.runs.process import QemuProcess
from pytest_maqet.runs.run_directory import RunDirectory

Launch = Callable[..., QemuProcess]


def descriptors(pid: int) -> dict[int, str]:
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found[int(entry.name)] = str(entry.readlink())
    return found


@pytest.mark.parametrize(
    ("argv", "code", "number", "reason"),
    [
        (("/bin/true",), 0, None, "exited with status 0"),
        (("/bin/false",), 1, None, "exited with status 1"),
        (("/bin/sh", "-c", "exit 255"), 255, None, "exited with status 255"),
        (("/bin/sh", "-c", "kill -KILL $$"), None, 9, "out-of-memory killer"),
        (("/bin/sh", "-c", "kill -BUS $$"), None, 7, "is /dev/shm or the disk full?"),
        (("/bin/sh", "-c", "kill -PIPE $$"), None, 13, "killed by signal 13 (SIGPIPE)"),
        (("/bin/sh", "-c", "kill -40 $$"), None, 40, "killed by signal 40"),
    ],
)
def test_exit_status(
    launch: Launch, argv: tuple[str, ...], code: int | None, number: int | None, reason: str
) -> None:
    process = launch(*argv)
    assert eventually(lambda: process.exit() is not None), "the end was not seen"
    found = process.exit()
    assert found is not None
    assert (found.code, found.signal) == (code, number), found
    assert reason in found.reason
    assert process.dismiss(5) == found, "dismissal changed how it had ended"
    assert read_exit(process.directory) == found
    assert process.exit() == found


def test_room_for_many_descriptors(launch: Launch) -> None:
    """Or QEMU, which has threads, waits in the kernel when it opens its 65th."""
    process = launch(*SLEEP)
    said = Path(f"/proc/{process.pid}/status").read_text()
    size = int(said.split("FDSize:")[1].split()[0])
    assert size >= 1024, f"the kernel's table has room for {size} descriptors"
    assert max(descriptors(process.pid)) < 64, "no descriptor was left open for that"


def test_running_process_has_no_exit(launch: Launch) -> None:
    process = launch()
    assert process.exit() is None
    assert read_exit(process.directory) is None
    assert process.fileno() >= 0
    process.kill()
    assert eventually(lambda: process.exit() is not None)
    process.kill()  # of a dead one: nothing


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/nonexistent/qemu", "No such file or directory"),
        ("/etc/passwd", "Permission denied"),
        ("/etc", "Permission denied"),
    ],
)
def test_what_cannot_be_executed(run: RunDirectory, path: str, reason: str) -> None:
    lease = run.lease("main")
    directory = run.new_vm_directory("vm")
    with pytest.raises(StartError) as caught:
        QemuProcess.launch([path], directory, lease.path)
    assert path in str(caught.value)
    assert reason in str(caught.value)
    found = read_exit(directory)
    assert found is not None
    assert found.reason == f"could not be executed: {reason}"
    assert not directory.pid_file.exists()
    with pytest.raises(StartError, match="no QEMU was started"):
        QemuProcess.attach(directory)


def test_not_an_executable_format(run: RunDirectory, tmp_path: Path) -> None:
    broken = tmp_path / "qemu"
    broken.write_bytes(b"\x7fELF nonsense")
    broken.chmod(0o755)
    with pytest.raises(StartError, match="Exec format error"):
        QemuProcess.launch([str(broken)], run.new_vm_directory("vm"), run.lease("main").path)


def test_lease_that_nobody_holds(run: RunDirectory) -> None:
    lease = run.lease("main")
    lease.close()
    directory = run.new_vm_directory("vm")
    with pytest.raises(StartError, match="nobody holds the lease"):
        QemuProcess.launch(SLEEP, directory, lease.path)
    assert not directory.pid_file.exists(), "QEMU was started for an owner that is gone"


def test_lease_that_is_missing(run: RunDirectory) -> None:
    with pytest.raises(StartError, match="No such file"):
        QemuProcess.launch(SLEEP, run.new_vm_directory("vm"), run.path / "none.lease")


def test_missing_directory(run: RunDirectory) -> None:
    directory = run.new_vm_directory("vm")
    directory.path.rmdir()
    with pytest.raises(StartError, match=r"keeper\.log cannot be written"):
        QemuProcess.launch(SLEEP, directory, run.lease("main").path)


def test_nul_in_the_arguments(launch: Launch) -> None:
    with pytest.raises(StartError, match="NUL"):
        launch("/bin/sleep", "3\x000")


def test_standard_streams_cannot_be_passed(launch: Launch) -> None:
    with pytest.raises(ValueError, match="standard streams"):
        launch(pass_fds=[2])


def test_one_qemu_at_a_time_in_a_directory(launch: Launch) -> None:
    first = launch()
    with pytest.raises(StartError, match="another QEMU is running there already"):
        launch(directory=first.directory)
    assert first.exit() is None, "the second launch hurt the first"


def test_directory_serves_one_qemu_after_the_other(launch: Launch) -> None:
    first = launch("/bin/false")
    assert eventually(lambda: first.exit() is not None)
    first.dismiss(5)
    second = launch(directory=first.directory)
    assert second.exit() is None, "the exit status of the last QEMU was taken for the new one's"
    attached = QemuProcess.attach(first.directory)
    assert attached.pid == second.pid
    attached.close()


def test_nothing_to_attach_to(run: RunDirectory) -> None:
    with pytest.raises(StartError, match="no QEMU was started"):
        QemuProcess.attach(run.new_vm_directory("vm"))


def test_attach_to_a_dead_one_tells_why(launch: Launch) -> None:
    process = launch("/bin/sh", "-c", "echo 'qemu: bad option' >&2; exit 1")
    assert eventually(lambda: process.exit() is not None)
    with pytest.raises(QemuDied, match="exited with status 1") as caught:
        QemuProcess.attach(process.directory)
    assert caught.value.code == 1
    assert caught.value.stderr == "qemu: bad option"
    assert "bad option" in str(caught.value)


def test_recycled_pid_is_not_taken_for_qemu(launch: Launch) -> None:
    process = launch()
    os.kill(keeper_pid(process.directory), signal.SIGKILL)
    assert eventually(lambda: process.exit() is not None)
    process.directory.pid_file.write_text(f"{os.getpid()}\n")  # as if the kernel had given the pid to us
    with pytest.raises(QemuDied):
        QemuProcess.attach(process.directory)


def test_attached_user_can_dismiss(launch: Launch, watch: Callable[[int], Watched]) -> None:
    process = launch()
    gone = watch(keeper_pid(process.directory))
    user = QemuProcess.attach(process.directory)
    assert user.dismiss(5) is not None
    assert gone.gone(0)
    assert process.exit() is not None
    user.close()


def test_dismiss_and_close_are_idempotent(launch: Launch) -> None:
    process = launch()
    first = process.dismiss(5)
    assert process.dismiss(5) == first
    process.close()
    process.close()
    assert process.dismiss(5) == first
    assert process.exit() == first
    with pytest.raises(ValueError, match="closed"):
        process.fileno()


def test_dismissed_from_many_threads(launch: Launch) -> None:
    process = launch()
    found: list[object] = []

    def dismiss() -> None:
        found.append(process.dismiss(5))

    threads = [threading.Thread(target=dismiss) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 4
    assert len(set(found)) == 1


def test_process_started_in_a_thread_outlives_it(launch: Launch, watch: Callable[[int], Watched]) -> None:
    started: list[QemuProcess] = []

    def start() -> None:
        started.append(launch())

    thread = threading.Thread(target=start)
    thread.start()
    thread.join(10)
    assert watch(started[0].pid).alive(), "the death signal followed the thread that had launched the VM"


def test_handle_is_not_valid_in_a_forked_child(launch: Launch) -> None:
    process = launch()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            process.kill()
            text = "nothing raised"
        except NotSupported as error:
            text = str(error)
        os.write(writer, text.encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        assert "forked child" in answer.read()
    assert process.exit() is None, "a forked child ended its parent's VM"


def test_descriptors_of_keeper_and_qemu(launch: Launch) -> None:
    with socket.socket(socket.AF_UNIX) as given, socket.socket() as stray, Path("/etc/passwd").open() as file:
        os.set_inheritable(stray.fileno(), True)
        os.set_inheritable(file.fileno(), True)
        process = launch(pass_fds=[given.fileno(), given.fileno()])
        log = str(process.directory.stderr_log)
        inode = f"socket:[{os.fstat(given.fileno()).st_ino}]"
        passed = {0: "/dev/null", 1: log, 2: log, given.fileno(): inode}
        # The dynamic linker opens files for a moment.
        assert eventually(lambda: descriptors(process.pid) == passed), descriptors(process.pid)
        keeper_process = keeper_pid(process.directory)
        # It tells us about QEMU first and puts its own things in order then.
        assert eventually(lambda: len(descriptors(keeper_process)) == 10), descriptors(keeper_process)
        found = descriptors(keeper_process)
    assert [found[0], found[1], found[2]] == ["/dev/null", "/dev/null", str(process.directory.keeper_log)]
    assert inode not in found.values(), "the keeper keeps QEMU's sockets open after its death"
    assert not any("passwd" in path for path in found.values())
    rest = sorted(found[fd] for fd in found if fd > 2)
    kinds = [path.split(":")[0] if path.startswith(("pipe", "anon")) else Path(path).name for path in rest]
    assert kinds == ["main.lease", "keeper.lock", "anon_inode", *["pipe"] * 4], f"stray descriptors: {rest}"


def test_session_directory_umask_and_environment(launch: Launch, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        process = launch(
            "/bin/sh",
            "-c",
            "umask; pwd; echo $A-$HOME; > made; sleep 300",
            env={"A": "b\udcff"},
            cwd=tmp_path,
        )
    finally:
        os.umask(old)
    log = process.directory.stderr_log
    assert eventually((tmp_path / "made").exists)
    assert log.read_bytes() == b"0077\n" + os.fsencode(tmp_path) + b"\nb\xff-\n"
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o600
    assert os.getsid(process.pid) != os.getsid(0), "QEMU must not be in the terminal's session"
    assert Path(f"/proc/{keeper_pid(process.directory)}/cwd").readlink() == Path("/")
    for path in process.directory.path.iterdir():
        assert path.stat().st_mode & 0o077 == 0, f"{path.name} can be read by others under umask 0"


def test_working_directory_is_the_vms(launch: Launch) -> None:
    process = launch("/bin/pwd")
    assert eventually(lambda: process.exit() is not None)
    assert process.directory.stderr_log.read_text().strip() == str(process.directory.path)


def test_ignored_signals_are_not_inherited(launch: Launch) -> None:
    process = launch("/bin/grep", "SigIgn", "/proc/self/status")
    assert eventually(lambda: process.exit() is not None)
    ignored = int(process.directory.stderr_log.read_text().split()[1], 16)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        assert not ignored >> (number - 1) & 1, f"QEMU starts with {number.name} ignored"


def test_blocked_signals_of_the_launcher_do_not_make_a_keeper_deaf(launch: Launch) -> None:
    old = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        process = launch()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
    found = process.dismiss(5)
    assert found is not None
    assert "its owner was done with it" in found.reason, "SIGTERM did not reach the keeper"


def test_long_argument_list(launch: Launch) -> None:
    argument = "x" * 100_000
    process = launch("/bin/sh", "-c", 'echo "$#" "${#1}"', "sh", *[argument] * 10)
    assert eventually(lambda: process.exit() is not None)
    assert process.directory.stderr_log.read_text().split() == ["10", "100000"]


@pytest.mark.parametrize("job", [b"", b"a/bin/sleep\x00a300\x00", b"garbage"])
def test_keeper_without_a_whole_job_ends(tmp_path: Path, job: bytes) -> None:
    found = subprocess.run(
        [sys.executable, "-I", "-S", keeper.__file__], input=job, capture_output=True, timeout=10, check=False
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")


def test_many_starts_leave_no_descriptors(launch: Launch) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    launch().dismiss(5)
    before = count()
    for _ in range(10):
        process = launch("/bin/true")
        process.dismiss(5)
        process.close()
    assert count() == before
