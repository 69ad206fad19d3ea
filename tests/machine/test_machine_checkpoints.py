"""Checkpoints: what becomes of QEMU, the handle and its waits; `builtin:nano` has no memory worth saving."""

import json
import os
import random
import signal
import socket
from contextlib import contextmanager
from dataclasses import replace

import pytest

from pytest_maqet import GuestPanic, MaqetError, NotSupported, QemuDied, QMPCommandError, WaitTimeout
from pytest_maqet.config import VmConfig
from pytest_maqet.machine import join, launch
from pytest_maqet.machine.jobs import run_job


def say(vm, text: str) -> None:
    vm.console.send(text + "\n")


@contextmanager
def panicking(vm):
    """Past the handle, whose own call might tell the panic before it returns."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(vm.life.directory.serial_socket("main")))
        line.sendall(b"panic\n")
        yield


def test_a_restored_vm_goes_on_in_the_same_process(boot):
    vm = boot()
    before = vm.pid, vm.workdir, vm.console_log
    vm.checkpoint("a")
    assert vm.status == "running", "the guest stands still after its checkpoint"
    for text in ("one", "two"):
        vm.restore("a")
        say(vm, text)
        vm.wait.console(f"echo: {text}")
    assert (vm.pid, vm.workdir, vm.console_log) == before
    assert vm.health() is None


def test_waits_after_a_restore_see_only_what_comes(boot):
    vm = boot()
    vm.checkpoint("a")
    say(vm, "past")
    vm.wait.console("echo: past")
    say(vm, "unread")
    vm.wait.until(lambda: "echo: unread" in vm.console_log.read_text())
    vm.restore("a")
    with pytest.raises(WaitTimeout):
        vm.wait.console("past|unread", timeout=0.05)
    say(vm, "future")
    vm.wait.console("echo: future")
    assert vm.wait.console("echo: past", since="start"), "the log has everything"


def test_events_from_before_a_restore_are_not_found(boot):
    vm = boot()
    vm.checkpoint("a")
    vm.reset()
    vm.wait.until(lambda: vm.call_on_loop(lambda: vm.life.vitals.mailbox.find("RESET", {})))
    vm.restore("a")
    with pytest.raises(WaitTimeout):
        vm.wait.event("RESET", timeout=0.02)
    vm.reset()
    vm.wait.event("RESET", timeout=5)


def test_a_panic_is_over_after_a_restore(boot):
    vm = boot()
    vm.checkpoint("well")
    with panicking(vm), pytest.raises(GuestPanic):
        vm.wait.console("never", timeout=30)
    vm.wait.status("guest-panicked")
    with pytest.raises(NotSupported, match="in the state 'guest-panicked'"):
        vm.checkpoint("ill")
    vm.restore("well")
    assert vm.health() is None
    say(vm, "alive")
    vm.wait.console("echo: alive", timeout=20)


def test_a_panic_that_nobody_saw_still_fails_the_test(boot):
    vm = boot()
    vm.checkpoint("a")
    with vm.qmp.events("GUEST_PANICKED") as panics, panicking(vm):
        panics.get()
    vm.restore("a")
    assert isinstance(vm.unseen_failure(), GuestPanic)


def test_a_power_off_is_over_after_a_restore(boot):
    vm = boot()
    vm.checkpoint("on")
    for _ in range(2):
        vm.powerdown()
        vm.wait.shutdown()
        with pytest.raises(NotSupported, match="in the state 'shutdown'"):
            vm.checkpoint("off")
        vm.restore("on")
        assert vm.status == "running"
        with pytest.raises(WaitTimeout):
            vm.wait.shutdown(timeout=0.02)
        say(vm, "alive")
        vm.wait.console("echo: alive")


def test_a_paused_guest_is_paused_again(boot):
    vm = boot()
    vm.checkpoint("running")
    vm.pause()
    vm.checkpoint("paused")
    assert vm.status == "paused", "a checkpoint set a paused guest going"
    vm.resume()
    vm.restore("paused")
    assert vm.status == "paused"
    vm.restore("running")
    assert vm.status == "running"


def test_names_are_whatever_the_test_calls_them(boot):
    vm = boot()
    names = ["a", "A", "with blanks", "../../etc/passwd", "ünï — 日本", "x" * 300, "a,b=c", '"; quit']
    for name in names:
        vm.checkpoint(name)
    assert vm.checkpoints == tuple(names)
    random.Random(3).shuffle(names)
    for name in names:
        vm.restore(name)
    assert vm.health() is None


@pytest.mark.parametrize(("wrong", "error"), [("", ValueError), (" ", ValueError), (7, TypeError)])
def test_what_is_no_name(boot, wrong, error):
    with pytest.raises(error, match="name of a checkpoint"):
        boot().checkpoint(wrong)


def test_an_unknown_name_is_told_with_those_there_are(boot):
    vm = boot()
    with pytest.raises(MaqetError, match=r"no checkpoint 'a'; there are: none[\s\S]*vm.checkpoint\('a'\)"):
        vm.restore("a")
    vm.checkpoint("installed")
    vm.checkpoint("configured")
    with pytest.raises(
        MaqetError, match=r"'instaled'; there are: 'installed', 'configured'\n.*did you mean 'installed'"
    ):
        vm.restore("instaled")
    assert vm.status == "running", "an unknown name stopped the guest"


def test_the_same_name_again_replaces(boot):
    vm = boot()
    vm.checkpoint("a")
    vm.checkpoint("b")
    vm.checkpoint("a")
    assert vm.checkpoints == ("b", "a")
    assert len(list(vm.workdir.glob("memory-*"))) == 2, "the replaced one takes room"
    assert vm.qmp.execute("query-jobs") == [], "a job was left in QEMU"


def test_a_checkpoint_that_cannot_be_loaded_leaves_a_paused_guest(boot):
    vm = boot()
    vm.checkpoint("a")
    tag = json.loads((vm.workdir / "checkpoints.json").read_text())[str(vm.pid)]["a"]["tag"]
    gone = {"tag": tag, "devices": [tag]}
    vm.on_loop(run_job(vm.life, "snapshot-delete", gone, vm.deadline(None, 10)))
    with pytest.raises(
        QMPCommandError, match=r"'a' could not be restored: .*does not exist[\s\S]*vm\.reset\(\)"
    ):
        vm.restore("a")
    assert vm.status == "paused"
    vm.reset()
    vm.resume()
    vm.wait.console("guest ready")
    assert vm.health() is None


def test_a_checkpoint_goes_with_its_qemu(boot):
    vm = boot()
    vm.checkpoint("a")
    os.kill(vm.pid, signal.SIGKILL)
    vm.wait.exit()
    with pytest.raises(
        QemuDied, match=r"checkpoint 'a' went with its QEMU process\n[\s\S]*vm\.start\(\)"
    ) as caught:
        vm.restore("a")
    assert caught.value.signal == signal.SIGKILL
    with pytest.raises(QemuDied):
        vm.checkpoint("b")
    assert vm.checkpoints == ()


def test_a_new_start_has_no_checkpoints_and_gives_the_room_back(boot):
    vm = boot(storage=[{"name": "data", "type": "qcow2", "size": "8M"}])
    vm.checkpoint("a")
    vm.stop()
    vm.start()
    assert vm.checkpoints == ()
    with pytest.raises(MaqetError, match=r"'a' went with the QEMU process[\s\S]*again after"):
        vm.restore("a")
    vm.checkpoint("b")
    assert len(list(vm.workdir.glob("memory-*"))) == 1
    info = vm.qmp.execute("query-named-block-nodes", flat=True)
    snapshots = next(node["image"].get("snapshots", []) for node in info if node["node-name"] == "data")
    assert len(snapshots) == 1, f"the disk still has the lost checkpoint: {snapshots}"
    vm.restore("b")


def test_a_raw_disk_that_the_guest_writes_is_named(boot, tmp_path):
    raw = tmp_path / "own.raw"
    raw.write_bytes(bytes(1 << 20))
    vm = boot(arguments=[{"drive": f"file={raw},format=raw,if=virtio"}])
    with pytest.raises(NotSupported, match=rf"{raw} \(raw\)[\s\S]*`storage:`"):
        vm.checkpoint("a")
    assert vm.status == "running"
    assert vm.checkpoints == ()
    assert not list(vm.workdir.glob("memory-*")), "the failed checkpoint left its file"
    say(vm, "alive")
    vm.wait.console("echo: alive")


def test_a_raw_disk_that_is_only_read_does_no_harm(boot, tmp_path):
    raw = tmp_path / "own.raw"
    raw.write_bytes(bytes(1 << 20))
    vm = boot(arguments=[{"drive": f"file={raw},format=raw,if=virtio,readonly=on"}])
    vm.checkpoint("a")
    vm.restore("a")


def test_a_disk_without_a_device_is_part_of_it(boot):
    vm = boot(storage=[{"name": "spare", "type": "qcow2", "size": "8M", "interface": "none"}])
    vm.checkpoint("a")
    found = json.loads((vm.workdir / "checkpoints.json").read_text())
    assert found[str(vm.pid)]["a"]["disks"] == ["spare"]
    vm.restore("a")


def test_a_vm_of_all_workers_is_put_back_by_one_that_has_it_alone(host):
    config = VmConfig.model_validate({"name": "nano", "image": "builtin:nano", "scope": "run"})
    vm = launch(config, host)
    try:
        for call in (vm.checkpoint, vm.restore):
            with pytest.raises(NotSupported, match=r"with vm\.exclusive\(\)"):
                call("a")
        with vm.exclusive():
            vm.checkpoint("a")
            vm.restore("a")
        assert vm.checkpoints == ("a",)
    finally:
        vm.close()


def test_every_process_that_uses_the_vm_sees_that_it_is_well_again(host):
    config = VmConfig.model_validate({"name": "nano", "image": "builtin:nano", "scope": "run"})
    shared = replace(host, monitors=3)
    vm = launch(config, shared)
    other = join(vm.life.directory, config, shared)
    try:
        with vm.exclusive():
            vm.checkpoint("a")
            with panicking(vm):
                vm.wait.panic()
                other.wait.panic()
            vm.restore("a")
        assert other.checkpoints == ("a",)
        assert vm.health() is None
        other.wait.until(lambda: other.health() is None, timeout=5, message="the other handle to see it")
    finally:
        other.close()
        vm.close()
