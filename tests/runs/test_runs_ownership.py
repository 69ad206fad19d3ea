"""Who dies with whom: owners, their children, keepers and QEMU, ended by real signals."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from run_processes import Owner, Watched, eventually, keeper_pid

from pytest_maqet.errors import QemuDied
from pytest_maqet.runs.exit_status import read_exit
from pytest_maqet.runs.lock_holders import lock_holder
from pytest_maqet.runs.process import QemuProcess
from pytest_maqet.runs.run_directory import RunDirectory

Owners = Callable[..., Owner]
Watch = Callable[[int | None], Watched]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSEGV])
def test_owner_killed_takes_its_qemu_along(owner: Owners, watch: Watch, number: signal.Signals) -> None:
    one = owner("a")
    qemu, keeper = watch(one.facts["qemu"]), watch(keeper_pid(one.vm))
    one.process.send_signal(number)
    assert qemu.gone(), f"QEMU outlived its owner, which got {number.name}, by a second"
    assert keeper.gone(), "the keeper stayed although nobody is left"
    found = read_exit(one.vm)
    assert found is not None
    assert found.reason == "killed by signal 9 (SIGKILL): its owner was gone"


def test_owner_that_ends_normally_takes_its_qemu_along(owner: Owners, watch: Watch) -> None:
    one = owner("a")
    qemu = watch(one.facts["qemu"])
    assert one.process.stdin is not None
    one.process.stdin.close()
    assert one.process.wait(5) == 0
    assert qemu.gone(), "QEMU outlived an owner that forgot it"


@pytest.mark.parametrize("kind", ["fork", "daemon", "spawn"])
def test_children_of_the_owner_do_not_keep_its_lease(owner: Owners, watch: Watch, kind: str) -> None:
    one = owner("a")
    qemu = watch(one.facts["qemu"])
    child = watch(one.ask(kind)["pid"])
    try:
        one.process.kill()
        assert qemu.gone(), f"QEMU is kept alive by a child of its dead owner ({kind})"
        assert child.alive(0), "the child had to outlive its parent for this test to mean anything"
    finally:
        os.kill(child.pid, signal.SIGKILL)


def test_end_of_a_forked_child_leaves_the_vm_alone(owner: Owners, watch: Watch) -> None:
    one = owner("a")
    qemu = watch(one.facts["qemu"])
    child = one.ask("fork")["pid"]
    os.kill(child, signal.SIGKILL)
    assert qemu.alive(), "the end of a forked child dropped its parent's lease"


def test_keeper_killed_takes_qemu_along(owner: Owners) -> None:
    one = owner("a")
    other = QemuProcess.attach(one.vm)
    os.kill(keeper_pid(one.vm), signal.SIGKILL)
    assert eventually(lambda: other.exit() is not None, 1), "QEMU outlived its keeper"
    found = other.exit()
    assert found is not None
    assert (found.code, found.signal) == (None, None)
    assert "its keeper, which was killed" in found.reason
    with pytest.raises(QemuDied, match="its keeper, which was killed"):
        QemuProcess.attach(one.vm)
    other.close()


def test_stopped_keeper_is_ended_by_force(launch: Callable[..., QemuProcess], watch: Watch) -> None:
    process = launch()
    qemu, keeper = watch(process.pid), watch(keeper_pid(process.directory))
    os.kill(keeper.pid, signal.SIGSTOP)
    assert process.dismiss(0.2) is not None
    assert qemu.gone(0), "QEMU survived its dismissal"
    assert keeper.gone(0), "a stopped keeper survived the dismissal of its VM"


def test_lost_vm_leaves_evidence_and_nothing_big(owner: Owners, watch: Watch) -> None:
    one = owner("a", argv=("/bin/sh", "-c", "echo last words >&2; exec sleep 300"))
    keeper, directory = watch(keeper_pid(one.vm)), one.vm
    assert eventually(directory.stderr_log.read_text), "QEMU said nothing"
    elsewhere = directory.path.parent / "precious.qcow2"
    elsewhere.touch()
    for path in (directory.disk("root"), directory.disk("data", ".raw"), directory.path / "memory.ram"):
        path.write_bytes(b"x" * 100)
    (directory.path / "link.qcow2").symlink_to(elsewhere)
    directory.serial_log("main").write_text("console\n")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory.monitor_socket(0)))
        one.process.kill()
        assert keeper.gone()
    left = {path.name for path in directory.path.iterdir()}
    wanted = {"exit", "keeper.lock", "keeper.log", "pid", "serial-main.log", "stderr.log"}
    assert left == wanted, "the evidence must stay, disks, RAM and sockets must go"
    assert directory.stderr_log.read_text() == "last words\n"
    assert elsewhere.exists(), "a symbolic link was followed"


def test_dismissed_vm_keeps_its_disks(launch: Callable[..., QemuProcess]) -> None:
    process = launch()
    process.directory.disk("root").touch()
    found = process.dismiss(5)
    assert found is not None
    assert found.reason == "killed by signal 9 (SIGKILL): its owner was done with it"
    assert process.directory.disk("root").exists(), "an owner that is alive decides about the disks itself"


def test_kept_vm_outlives_its_owner(owner: Owners, watch: Watch) -> None:
    one = owner("a")
    qemu, keeper = watch(one.facts["qemu"]), watch(keeper_pid(one.vm))
    one.ask("keep")
    one.process.kill()
    assert qemu.alive(), "a kept VM went with its owner"
    other = QemuProcess.attach(one.vm)
    one.vm.disk("root").touch()
    other.kill()
    assert eventually(lambda: other.exit() is not None, 1)
    found = other.exit()
    other.close()
    assert found is not None
    assert found.signal == signal.SIGKILL
    assert keeper.gone(), "the keeper of a kept VM must go with it"
    assert not one.vm.disk("root").exists(), "nobody is left for its disks"


def test_shared_lease_holds_until_the_last_user_is_gone(owner: Owners, watch: Watch) -> None:
    first, second = owner("a", lease="run"), owner("a", lease="run")
    qemu = watch(first.facts["qemu"])
    first.process.kill()
    first.process.wait()
    assert qemu.alive(), "a VM of the whole run went with the worker that had started it"
    attached = QemuProcess.attach(first.vm)
    assert attached.exit() is None
    attached.close()
    second.process.kill()
    assert qemu.gone(), "nobody is left, but the VM of the run is"


def test_worker_killed_takes_only_its_own_vms(owner: Owners, watch: Watch) -> None:
    first, second = owner("a", lease="gw0"), owner("a", lease="gw1")
    mine, theirs = watch(first.facts["qemu"]), watch(second.facts["qemu"])
    first.process.kill()
    assert mine.gone()
    assert theirs.alive(), "a worker's end ended another worker's VM"


def test_exit_is_known_to_every_user(owner: Owners) -> None:
    one = owner("a")
    users = [QemuProcess.attach(one.vm) for _ in range(3)]
    os.kill(one.facts["qemu"], signal.SIGSEGV)
    for user in users:
        assert eventually(lambda user=user: user.exit() is not None, 1)
        found = user.exit()
        assert found is not None
        assert (found.code, found.signal) == (None, signal.SIGSEGV)
        assert found.reason == "killed by signal 11 (SIGSEGV): QEMU crashed"
        user.close()
    with pytest.raises(QemuDied, match="SIGSEGV") as caught:
        QemuProcess.attach(one.vm)
    assert caught.value.signal == signal.SIGSEGV


def test_what_qemu_started_goes_with_it(
    launch: Callable[..., QemuProcess], tmp_path: Path, watch: Watch
) -> None:
    told = tmp_path / "helper"
    process = launch("/bin/sh", "-c", f"sleep 300 & echo $! > {told}; wait")
    assert eventually(lambda: told.exists() and told.read_text().strip())
    helper = watch(int(told.read_text()))
    process.dismiss(5)
    assert helper.gone(), "a helper that QEMU had started was left behind"


def test_a_qemu_below_a_wrapper_ends_although_both_keeper_and_wrapper_were_killed(
    launch: Callable[..., QemuProcess], run: RunDirectory, watch: Watch
) -> None:
    """The kernel ends the keeper's child only; QEMU's lock on its pid file tells who else there is."""
    vm = run.new_vm_directory("vm")
    qemu = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.lockf(f, 2); time.sleep(300)"
    # `; true` keeps the shell from becoming the program itself.
    process = launch(
        "/bin/sh", "-c", '"$0" "$@"; true', sys.executable, "-c", qemu, str(vm.qemu_pid_file), directory=vm
    )
    assert eventually(lambda: lock_holder(vm.qemu_pid_file) is not None)
    below = watch(lock_holder(vm.qemu_pid_file))
    assert below.pid != process.pid
    os.kill(keeper_pid(vm), signal.SIGKILL)
    assert eventually(lambda: process.exit() is not None)
    assert below.alive(0.1), "there is nothing to be ended"
    process.dismiss(1)
    assert below.gone(0), "a QEMU that a wrapper had started was left behind"
