"""What a VM may be like when it is frozen, and what of it lasts longer than itself."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress

import pytest
from manager_rig import acquired, last_start

from pytest_maqet.errors import GuestPanic, MaqetError, NotSupported, StartError
from pytest_maqet.machine import channel_search

LINUX = {"image": "builtin:linux", "memory": "256M"}


def power_off(vm) -> None:
    with suppress(MaqetError):  # the guest goes while it runs the command
        vm.run("poweroff -f")
    vm.wait.shutdown()


def panic(vm) -> None:
    with vm.expecting(GuestPanic), suppress(MaqetError):
        vm.run("echo c > /proc/sysrq-trigger")


@pytest.mark.parametrize(("end", "state"), [(power_off, "shutdown"), (panic, "guest-panicked")])
def test_a_guest_that_does_not_go_on_is_not_frozen(new_manager, end, state):
    manager = new_manager({"linux": LINUX})
    vm = acquired(manager, "linux")
    end(vm)
    with pytest.raises(NotSupported, match=f"(?s)the state '{state}' cannot be frozen.*vm.reset"):
        vm.freeze()
    end_of_wait = time.monotonic() + 10
    while vm.status == "running" and time.monotonic() < end_of_wait:
        time.sleep(0.05)  # a panic's text is on the console before QEMU is told
    assert vm.status == state, "it was touched all the same"
    with pytest.raises(NotSupported, match=f"no template of linux.*the state '{state}'"):
        manager.template("linux", prepare=end)


def test_a_guest_that_prepare_has_powered_off_is_booted(new_manager, tmp_path, monkeypatch):
    (tmp_path / "powers_off.py").write_text(
        "def prepare(vm):\n    vm.run('(sleep 0.2; poweroff -f) >/dev/null 2>&1 &')\n    vm.wait.shutdown()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    manager = new_manager({"linux": {**LINUX, "prepare": [{"call": "powers_off:prepare"}]}})
    vm = acquired(manager, "linux")
    assert vm.started_by == "boot"
    assert "the state 'shutdown' cannot be frozen" in last_start(manager)["reason"]


def test_a_read_only_disk_on_a_base_outlives_the_vm_that_was_frozen(new_manager, tmp_path):
    base = tmp_path / "base.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", base, "8M"], check=True)
    disk = {"name": "data", "backing_file": str(base), "readonly": True}
    manager = new_manager({"linux": {**LINUX, "storage": [disk]}})
    vm = acquired(manager, "linux")
    template = vm.freeze()
    manager.stop(vm)
    derived = manager.template("linux", prepare=lambda vm: vm.run("touch /prepared"))
    for one in (template, derived):
        with manager.start(one) as clone:
            assert clone.run("cat /sys/block/vda/size /sys/block/vda/ro").stdout == "16384\n1\n"


def test_a_template_whose_files_changed_while_it_was_made_is_not_kept(
    new_manager, store, tmp_path, monkeypatch
):
    message = tmp_path / "message"
    message.write_text("old")
    # As a build does that goes on beside the tests; here it comes before the file is put into the guest.
    (tmp_path / "builds_on.py").write_text(
        "from pathlib import Path\n"
        "def prepare(vm):\n"
        "    Path(__file__).with_name('message').write_text('new')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    steps = [{"call": "builds_on:prepare"}, {"put": [str(message), "/message"]}]
    manager = new_manager({"linux": {**LINUX, "prepare": steps}})
    assert acquired(manager, "linux", "first").run("cat /message").stdout == "new"
    (tmp_path / "builds_on.py").write_text("def prepare(vm): pass\n")
    assert store.all() == [], "the template is kept under the digest of what it is not made of"
    assert any("files that it is made of changed" in note for note in manager.stats()["notes"])


def test_a_template_that_is_out_of_date_says_so(new_manager, tmp_path):
    disk = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "8M"], check=True)
    manager = new_manager({"nano": {"image": "builtin:nano", "storage": [{"name": "d", "file": str(disk)}]}})
    template = manager.template("nano")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "16M"], check=True)
    with pytest.raises(StartError, match=r"(?s)out of date: .*disk.qcow2.* has changed since.*again"):
        manager.start(template)


def test_a_guest_that_no_command_reaches_is_frozen_and_the_wait_for_one_told(new_manager, monkeypatch):
    monkeypatch.setattr(channel_search, "TELL_AFTER", 0.2)
    manager = new_manager({"bare": {"memory": "32M"}}, timeout_scale=0.2)
    assert acquired(manager, "bare").started_by == "clone"
    everything = manager._launcher.listener.told
    told = [text for kind, text in everything if kind == "progress" and "a way into the guest is" in text]
    assert len(told) == 1, everything
    assert "bare: before it is frozen" in told[0]
    assert "`guest: {connect: []}` says that there is none" in told[0]


def test_a_function_that_makes_another_machine_of_the_vm_is_told_so(new_manager, store):
    manager = new_manager({"nano": {"image": "builtin:nano", "memory": "16M"}})

    def grow(vm) -> None:
        vm.kill()
        vm.start(memory="32M")

    with pytest.raises(NotSupported, match=r"(?s)another machine.*maqet.template\(…, memory=…\)"):
        manager.template("nano", prepare=grow)
    assert len(store.all()) == 1, "a template is kept that no clone can be made of"
