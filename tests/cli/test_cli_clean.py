"""`pytest-maqet clean`: dead runs and their strays go; what is in use, or not ours, stays."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_maqet.runs.dead_runs import dead_runs
from pytest_maqet.runs.lock_holders import lock_holder
from pytest_maqet.runs.run_directory import RunDirectory

Clean = Callable[..., "subprocess.CompletedProcess[str]"]
Command = Clean

#: Owns a run with one "QEMU" (a keeper does not care what it runs) until its stdin ends.
OWNER = """
import sys
from pytest_maqet.runs.process import QemuProcess
from pytest_maqet.runs.run_directory import RunDirectory
run = RunDirectory.create(sys.argv[1])
lease = run.lease("gw0")
vm = run.new_vm_directory("vm")
if "kept" in sys.argv:
    vm.keep_file.touch()
process = QemuProcess.launch(["/bin/sleep", "300"], vm, lease.path)
(vm.path / "disk-root.qcow2").write_bytes(b"x" * 1000000)
print(process.pid, flush=True)
sys.stdin.read()
"""
#: As QEMU does for -pidfile: a POSIX lock for as long as it lives.
POSIX_LOCK = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print(flush=True)
time.sleep(300)
"""


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The base directory of this test's runs, short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="mq-", dir="/tmp"))
    monkeypatch.setenv("MAQET_RUN_BASE", str(path))
    yield path
    for lock in path.glob("*/*/keeper.lock"):
        if pid := lock_holder(lock):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(path)


@pytest.fixture
def owner(base: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts processes that own a run with a VM."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().strip().isdecimal()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_nothing_to_remove(command: Command, base: Path) -> None:
    done = command("clean")
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing to remove\n", "")


def test_a_host_without_our_directories_gets_none(
    clean: Clean, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAQET_RUN_BASE", str(tmp_path / "no"))
    done = clean()
    assert (done.returncode, done.stdout) == (0, "nothing to remove\n")
    assert list(tmp_path.iterdir()) == [], "looking made a directory"


def test_a_dead_run_goes_and_a_living_one_stays(
    clean: Clean, base: Path, owner: Callable[..., subprocess.Popen[str]]
) -> None:
    dead, _living = owner("dead"), owner("living")
    locked = base / "dead/vm-1/keeper.lock"
    os.kill(lock_holder(locked) or 0, signal.SIGKILL)  # what it was to remove stays
    dead.kill()
    dead.wait()
    looked = clean("--dry-run")
    assert looked.returncode == 0
    assert f"would remove run {base}/dead (" in looked.stdout
    assert "its users (gw0) are gone, last used a moment ago" in looked.stdout
    assert f"in use: run {base}/living\n" in looked.stdout
    assert looked.stdout.splitlines()[-1].startswith("would remove 1 run: "), looked.stdout
    assert (base / "dead/vm-1/disk-root.qcow2").exists(), "a dry run has removed something"
    done = clean()
    assert (done.returncode, done.stderr) == (0, "")
    assert f"removed run {base}/dead (" in done.stdout
    assert [path.name for path in base.iterdir()] == ["living"]
    assert lock_holder(base / "living/vm-1/keeper.lock"), "the VM of a living run was ended"


def test_a_kept_vm_keeps_its_run(
    clean: Clean, base: Path, owner: Callable[..., subprocess.Popen[str]]
) -> None:
    process = owner("kept", "kept")
    process.kill()
    process.wait()
    done = clean("--all")
    assert f"in use: run {base}/kept (a VM of it was kept)\n" in done.stdout
    assert lock_holder(base / "kept/vm-1/keeper.lock"), "a kept VM was ended"


def test_a_stuck_keeper_and_its_qemu_go(
    clean: Clean, base: Path, owner: Callable[..., subprocess.Popen[str]]
) -> None:
    process = owner("run")
    keeper = lock_holder(base / "run/vm-1/keeper.lock")
    qemu = int((base / "run/vm-1/pid").read_text())
    assert keeper is not None
    os.kill(keeper, signal.SIGSTOP)
    _wait_until_stopped(keeper)  # else it may still be given the lease, which stops with it then
    seen = os.pidfd_open(qemu)
    process.kill()
    process.wait()
    looked = clean("--dry-run")
    assert f"would remove process /proc/{keeper} (0 bytes): a keeper that should have ended" in looked.stdout
    assert looked.stdout.splitlines()[-1].startswith("would remove 1 process, 1 run: ")
    assert lock_holder(base / "run/vm-1/keeper.lock") == keeper, "a dry run has ended a process"
    done = clean()
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    _wait_until_dead(seen)
    assert list(base.iterdir()) == []


def test_a_qemu_that_lost_its_keeper_goes(clean: Clean, base: Path) -> None:
    run = RunDirectory.create("run")
    vm = run.new_vm_directory("vm")
    with subprocess.Popen(
        [sys.executable, "-c", POSIX_LOCK, str(vm.qemu_pid_file)], stdout=subprocess.PIPE
    ) as stray:
        assert stray.stdout is not None
        stray.stdout.readline()
        assert "a QEMU" not in clean("-n").stdout, "a process of a living run is called a stray"
        run.close()
        assert f"process /proc/{stray.pid} (0 bytes): a QEMU that has lost" in clean("-n").stdout
        assert stray.poll() is None
        assert clean().returncode == 0
        assert stray.wait(10) == -signal.SIGKILL


def test_what_is_not_ours_is_left_alone(clean: Clean, base: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    (precious / "in-use.lease").mkdir(parents=True)
    (base / "link").symlink_to(precious)
    (base / "root").symlink_to("/")
    (base / "nowhere").symlink_to("gone")
    (base / "file").touch()
    (base / "photos").mkdir()
    os.mkfifo(base / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(base / "socket"))
    before = {path.name for path in base.iterdir()}
    done = clean("--all")
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in base.iterdir()} == before
    assert done.stdout.count("it is no run of this user") == len(before)
    assert (precious / "in-use.lease").exists(), "a symbolic link was followed"


def test_everything_that_can_be_in_a_dead_run_goes(clean: Clean, base: Path, tmp_path: Path) -> None:
    """Also folders that their owner may not look into; nothing that a link leads to."""
    (tmp_path / "precious").touch()
    run = RunDirectory.create("run")
    vm = run.new_vm_directory("vm").path
    (vm / "link").symlink_to(tmp_path)
    (vm / "root").symlink_to("/")
    (run.path / "vm-link").symlink_to(tmp_path)
    os.mkfifo(vm / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(vm / "socket"))
    (vm / "closed" / "deeper").mkdir(parents=True)
    (vm / "closed" / "deeper" / "file").touch()
    (vm / "closed" / "deeper").chmod(0)
    (vm / "closed").chmod(0)
    many = vm / "many"
    many.mkdir()
    for number in range(3000):
        (many / f"{number}").touch()
    run.close()
    done = clean()
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert list(base.iterdir()) == []
    assert (tmp_path / "precious").exists(), "a symbolic link was followed"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_directories_of_others_are_left_alone(clean: Clean, base: Path) -> None:
    run = RunDirectory.create("run")
    run.close()
    os.chown(run.path, 65533, 65533)
    done = clean("--all")
    assert f"left alone: {run.path}: it is no run of this user\n" in done.stdout
    assert run.path.exists()


def test_an_unsafe_base_is_left_alone(clean: Clean, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (base / "there").mkdir(mode=0o700)
    (base / "base").symlink_to(base / "there")
    monkeypatch.setenv("MAQET_RUN_BASE", str(base / "base"))
    done = clean("--all")
    assert done.returncode == 0
    assert f"left alone: {base}/base: it is a symbolic link\n" in done.stdout


def test_runs_in_every_place_are_found(clean: Clean, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that had another TMPDIR is not forgotten."""
    monkeypatch.delenv("MAQET_RUN_BASE")
    monkeypatch.setenv("TMPDIR", str(base))
    run = RunDirectory.create("run")
    assert run.path.parent == base / f"maqet-{os.geteuid()}"
    run.close()
    assert f"would remove run {run.path} (" in clean("-n").stdout


def test_what_cannot_be_removed_is_named(clean: Clean, base: Path) -> None:
    run = RunDirectory.create("run")
    mount = run.new_vm_directory("vm").path / "mount"
    mount.mkdir()
    run.close()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "x", mount], check=False).returncode:
        pytest.skip("it takes a mount to make something that its owner cannot remove")
    try:
        done = clean()
        assert done.returncode == 1
        assert done.stderr.startswith(
            f"not removed: run {base}/run: not all of it can be removed; the rest is "
        )
        again = clean()
        assert (again.returncode, again.stdout) == (1, "nothing to remove\n")
    finally:
        left = next(base.rglob("mount"))
        subprocess.run(["umount", left], check=True)
    assert clean().returncode == 0
    assert list(base.iterdir()) == []


def test_wrong_size(clean: Clean, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = clean("--templates-size", "much")
    assert done.returncode == 2
    assert done.stderr.startswith("pytest-maqet: --templates-size: 'much' is not a size such as 20G\n")
    monkeypatch.setenv("MAQET_TEMPLATES_SIZE", "little")
    assert "MAQET_TEMPLATES_SIZE: 'little' is not a size" in clean().stderr


def _wait_until_stopped(pid: int) -> None:
    """That every thread of it stands still."""
    end = time.monotonic() + 5
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        while stat.read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < end, f"{pid} does not stop"
            time.sleep(0.005)


def _wait_until_dead(pidfd: int) -> None:
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    began = time.monotonic()
    assert poll.poll(10_000), f"it lives {time.monotonic() - began:.0f} s after its keeper was killed"
    os.close(pidfd)


def test_a_look_at_a_dead_run_is_no_use_of_it(
    base: Path, owner: Callable[..., subprocess.Popen[str]]
) -> None:
    process = owner("looked-at")
    process.kill()
    process.wait()
    with (base / "looked-at/gw0.lease").open("r+") as lease:
        # As a keeper that is just given it, only longer.
        fcntl.flock(lease, fcntl.LOCK_EX)
        threading.Timer(0.1, lambda: fcntl.flock(lease, fcntl.LOCK_UN)).start()
        found = dead_runs()
    assert found.used == []
    assert f"run {base}/looked-at" in [f"{left.kind} {left.path}" for left in found.leftovers]


def test_a_run_that_somebody_has_for_himself_is_in_use(
    base: Path, owner: Callable[..., subprocess.Popen[str]]
) -> None:
    process = owner("swept")
    process.kill()
    process.wait()
    with (base / "swept/gw0.lease").open("r+") as lease:
        fcntl.flock(lease, fcntl.LOCK_EX)
        assert dead_runs().used == [f"run {base}/swept"]
