"""Dead runs go, living ones stay, and nothing outside is touched."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from run_processes import Owner, Watched, eventually, keeper_pid

from pytest_maqet.runs.base_directory import base_directory
from pytest_maqet.runs.process import QemuProcess
from pytest_maqet.runs.run_directory import RunDirectory
from pytest_maqet.runs.sweep import sweep
from pytest_maqet.runs.vm_directory import VmDirectory

Owners = Callable[..., Owner]
Watch = Callable[[int | None], Watched]

#: As QEMU does for -pidfile: a POSIX lock for as long as it lives.
POSIX_LOCK = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print(flush=True)
time.sleep(60)
"""
#: As a sweep does with the leases of a run.
FLOCK = POSIX_LOCK.replace("lockf", "flock")
LAUNCHES = """
from pytest_maqet.runs.process import QemuProcess
from pytest_maqet.runs.run_directory import RunDirectory
run = RunDirectory.create("a")
lease = run.lease("main")
print(flush=True)
while True:
    QemuProcess.launch(["/bin/sleep", "98765"], run.new_vm_directory("v"), lease.path)
"""


def test_dead_run_goes(owner: Owners, watch: Watch) -> None:
    one = owner("dead")
    keeper = watch(keeper_pid(one.vm))
    one.vm.serial_log("main").write_text("x")
    one.process.kill()
    assert keeper.gone()
    one.process.wait()  # its leases are free one after the other
    assert sweep() == [Path(one.facts["run"])]
    assert not Path(one.facts["run"]).exists()
    assert list(base_directory().iterdir()) == []


def test_living_runs_stay(owner: Owners, watch: Watch, run: RunDirectory) -> None:
    first, second = owner("one"), owner("two")
    machines = [watch(one.facts["qemu"]) for one in (first, second)]
    assert sweep() == []
    assert all(machine.alive(0.1) for machine in machines), "a sweep ended a VM that is in use"
    assert first.vm.pid_file.exists()
    assert run.path.exists(), "a run without VMs is a run all the same"
    first.process.kill()
    assert eventually(lambda: sweep() == [Path(first.facts["run"])])
    assert machines[1].alive(0.1)
    assert second.vm.pid_file.exists()


def test_run_with_a_user_left_stays(owner: Owners) -> None:
    first, second = owner("a", lease="gw0"), owner("a", lease="gw1")
    first.process.kill()
    first.process.wait()
    assert sweep() == [], "a run that another worker uses was removed"
    second.process.kill()
    assert eventually(lambda: sweep() != [])


def test_run_with_a_kept_vm_stays(owner: Owners, watch: Watch) -> None:
    one = owner("a")
    qemu, keeper = watch(one.facts["qemu"]), watch(keeper_pid(one.vm))
    one.ask("keep")
    one.process.kill()
    one.process.wait()
    assert sweep() == []
    assert qemu.alive(0.1)
    kept = QemuProcess.attach(one.vm)
    kept.dismiss(5)
    kept.close()
    assert keeper.gone()
    assert sweep() == [Path(one.facts["run"])], "a kept VM that is over keeps its run for ever"


def test_keeper_of_another_container_is_seen(owner: Owners, watch: Watch) -> None:
    """Containers may share a directory; who looks from another PID namespace sees the lock, and no pid."""
    one = owner("a")
    qemu = watch(one.facts["qemu"])
    one.ask("keep")
    one.process.kill()
    one.process.wait()
    looks = (
        "from pytest_maqet.runs.sweep import sweep; from pytest_maqet.runs.dead_runs import dead_runs\n"
        "found = dead_runs(); print(sweep(), found.leftovers, found.used)"
    )
    command = ["unshare", "--fork", "--pid", "--mount-proc", sys.executable, "-c", looks]
    elsewhere = subprocess.run(command, capture_output=True, text=True, check=False)
    if elsewhere.stderr.startswith("unshare:"):
        pytest.skip("no PID namespace can be made here")
    used = f"run {one.facts['run']} (by a process of another container)"
    assert elsewhere.stdout == f"[] [] [{used!r}]\n", f"it was removed, or would be{elsewhere.stderr}"
    assert qemu.alive(0.1)


def test_stray_with_a_lock_on_its_pid_file_is_ended(base: Path, watch: Watch) -> None:
    run = RunDirectory.create()
    vm = run.new_vm_directory("vm")
    with subprocess.Popen(
        [sys.executable, "-c", POSIX_LOCK, str(vm.qemu_pid_file)], stdout=subprocess.PIPE
    ) as stray:
        assert stray.stdout is not None
        stray.stdout.readline()
        seen = watch(stray.pid)
        run.close()
        assert sweep() == [run.path]
        assert seen.gone(), "a QEMU that had lost owner and keeper was left"


def test_pid_in_a_file_that_nobody_locks_is_never_judged(base: Path) -> None:
    run = RunDirectory.create()
    vm = run.new_vm_directory("vm")
    with subprocess.Popen(["/bin/sleep", "60"]) as innocent:
        vm.qemu_pid_file.write_text(f"{innocent.pid}\n")
        vm.pid_file.write_text(f"{innocent.pid}\n")
        run.close()
        assert sweep() == [run.path]
        assert innocent.poll() is None, "a stale pid was killed"
        innocent.kill()


def test_what_is_not_a_run_is_left_alone(base: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "in-use.lease").touch()
    (base / "link").symlink_to(precious)
    (base / "file").touch()
    (base / "photos").mkdir()
    (base / "photos" / "cat.png").touch()
    assert sweep() == []
    assert (precious / "in-use.lease").exists(), "a symbolic link was followed"
    assert {path.name for path in base.iterdir()} == {"link", "file", "photos"}


def test_links_inside_a_dead_run_are_not_followed(base: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    run = RunDirectory.create()
    (run.path / "vm-1").symlink_to(tmp_path)
    (run.new_vm_directory("other").path / "link").symlink_to(tmp_path)
    run.close()
    assert sweep() == [run.path]
    assert (tmp_path / "precious").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_what_belongs_to_others_is_left_alone(base: Path) -> None:
    run = RunDirectory.create()
    run.close()
    os.chown(run.path, 65533, 65533)
    assert sweep() == []
    assert run.path.exists()


def test_removal_that_was_interrupted_is_finished(base: Path) -> None:
    left = base / ".maqet-dead-abc"
    left.mkdir()
    (left / "disk.qcow2").touch()
    assert sweep() == []
    assert not left.exists()


def test_missing_base_is_nothing_to_sweep(base: Path) -> None:
    assert sweep(base / "none") == []


def test_remove_is_left_to_the_last_user(base: Path) -> None:
    first, second = RunDirectory.create("a"), RunDirectory.create("a")
    first.lease("main")
    assert not first.remove()
    assert second.path.exists()
    assert second.remove()
    assert not second.path.exists()
    assert second.remove(), "removing twice is no error"


def test_remove_waits_for_keepers_that_end(run: RunDirectory, watch: Watch) -> None:
    process = QemuProcess.launch(["/bin/sleep", "60"], run.new_vm_directory("vm"), run.lease("main").path)
    keeper = watch(process.pid)
    assert run.remove(), "the directory stayed although its last VM was about to end"
    assert keeper.gone(0)
    process.close()


def test_forked_child_cannot_remove_the_run(run: RunDirectory) -> None:
    child = os.fork()
    if child == 0:
        os._exit(int(run.remove()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert run.path.exists()
    assert sweep() == [], "the parent's lease is gone"


def test_runs_made_while_others_sweep(base: Path) -> None:
    """Opening a run must never end in a directory that is being removed."""
    over = threading.Event()

    def sweeping() -> None:
        while not over.is_set():
            sweep(base)

    sweepers = [threading.Thread(target=sweeping) for _ in range(2)]
    for thread in sweepers:
        thread.start()
    try:
        for number in range(150):
            run = RunDirectory.create(f"r{number % 3}")
            vm = run.new_vm_directory("vm")
            assert vm.path.exists()
            assert run.lease("main").held
            run.close()
    finally:
        over.set()
        for thread in sweepers:
            thread.join()
    sweep(base)
    assert list(base.iterdir()) == []


def test_killed_sweep_blocks_nobody(base: Path) -> None:
    run = RunDirectory.create("a")
    run.close()
    lease = run.path / "in-use.lease"
    with subprocess.Popen([sys.executable, "-c", FLOCK, str(lease)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert sweep() == []
        other.send_signal(signal.SIGKILL)
    again = RunDirectory.create("a")
    with lease.open("r+") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    again.close()


def test_owner_that_dies_while_it_launches_leaves_no_keeper(base: Path, tmp_path: Path) -> None:
    """SIGKILL at any moment of a launch: whatever was started by then is gone a second later."""
    for milliseconds in range(3, 60, 6):
        with subprocess.Popen([sys.executable, "-c", LAUNCHES], stdout=subprocess.PIPE) as launcher:
            assert launcher.stdout is not None
            launcher.stdout.readline()
            threading.Event().wait(milliseconds / 1000)
            launcher.kill()
        assert eventually(lambda: not of_this_test(base), 1), (
            f"left after {milliseconds} ms: {of_this_test(base)}"
        )
        assert eventually(lambda: sweep() != [], 1)


def of_this_test(base: Path) -> list[str]:
    """Processes that work in this test's base directory, or are keepers without a job."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            where = (entry / "cwd").readlink()
            log = (entry / "fd" / "2").readlink()
        except OSError:
            continue
        if where.is_relative_to(base) or log.is_relative_to(base):
            found.append(f"{entry.name}: {words}")
    return found


def test_vm_directory_names_agree_with_the_keeper(run: RunDirectory) -> None:
    process = QemuProcess.launch(["/bin/true"], run.new_vm_directory("vm"), run.lease("main").path)
    process.dismiss(5)
    process.close()
    vm = VmDirectory(process.directory.path)
    names = {vm.pid_file, vm.exit_file, vm.keeper_lock, vm.keeper_log, vm.stderr_log}
    assert set(vm.path.iterdir()) == names


def test_a_run_whose_lease_somebody_just_looks_at_is_removed_all_the_same(base: Path) -> None:
    """Keepers are given the lease exclusively when its last user goes, and need a moment to notice."""
    run = RunDirectory.create()
    lease = run.lease("main").path
    run.close()
    descriptor = os.open(lease, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    timer = threading.Timer(0.5, os.close, [descriptor])
    timer.start()
    assert run.remove(), "it was taken for one that is in use"
    timer.join()
    assert not run.path.exists()
