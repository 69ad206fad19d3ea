"""VMs that come up as clones: pristine each time, and as much their own as if they had booted."""

from __future__ import annotations

import subprocess
import time
from importlib import import_module
from pathlib import Path

import pytest
from manager_rig import acquired, last_start, wanted

from pytest_maqet.errors import ConfigError, NotSupported

NANO = {"image": "builtin:nano", "memory": "16M"}
LINUX = {
    "image": "builtin:linux",
    "memory": "256M",
    "network": [{"user": {"forward": {"http": 80}}}],
    "storage": [{"name": "data", "size": "64M"}],
}


def uuid(vm) -> str:
    return vm.run("cat /proc/sys/kernel/random/uuid").stdout.strip()


def test_the_second_start_is_a_clone_of_the_first(new_manager, store):
    manager = new_manager({"nano": NANO})
    for test in "ab":
        vm = acquired(manager, "nano", test)
        assert vm.started_by == "clone"
        vm.console.send("hello\n")
        vm.wait.console("echo: hello", timeout=5)
    stats = manager.stats()
    assert (stats["clones"], stats["boots"], len(stats["templates"])) == (2, 0, 1)
    assert len(store.all()) == 1


def test_another_run_boots_nothing(new_manager):
    acquired(new_manager({"nano": NANO}), "nano")
    second = new_manager({"nano": NANO})
    assert acquired(second, "nano").started_by == "clone"
    assert second.stats()["templates"] == []


def test_a_clones_console_log_begins_with_the_boot_of_its_template(new_manager):
    manager = new_manager({"nano": NANO})
    vm = acquired(manager, "nano")
    assert "guest ready" in vm.console_log.read_text()
    assert vm.wait.console("guest ready", since="start", timeout=1)


def test_a_reset_clone_boots_as_any_vm(new_manager):
    manager = new_manager({"nano": NANO})
    vm = acquired(manager, "nano")
    vm.reset()
    vm.wait.event("RESET", timeout=5)
    vm.wait.console("guest ready", timeout=5)


def test_a_stopped_clone_boots_from_its_disks(new_manager):
    manager = new_manager({"linux": LINUX})
    vm = acquired(manager, "linux")
    vm.run("echo kept > /dev/vda; sync")
    vm.stop()
    vm.start()
    assert vm.run("head -n 1 /dev/vda").stdout == "kept\n"


def test_going_on_takes_no_descriptor_for_each_queue_of_the_serial_ports(new_manager):
    """QEMU would make 64 of them whenever a VM goes on, and unmake them when it stops."""
    vm = acquired(new_manager({"linux": LINUX}), "linux")
    found = list(Path(f"/proc/{vm.pid}/fd").iterdir())
    assert len(found) < 64, f"{len(found)} descriptors"


def test_a_clone_is_not_asked_to_announce_itself_on_the_network(new_manager):
    """As a guest that was moved to another host is: its network manager would be awake during the test."""
    manager = new_manager({"linux": LINUX})
    acquired(manager, "linux", "template")
    vm = acquired(manager, "linux")
    assert vm.started_by == "clone"
    vm.run("ip link set eth0 up; sleep 1")
    interrupts = vm.run("grep -- -config /proc/interrupts").stdout.splitlines()
    ours = [line.split() for line in interrupts if "virtio" in line]
    assert ours, "the network card has such an interrupt"
    network = vm.run("basename $(readlink -f /sys/class/net/eth0/device)").stdout.strip()
    asked = {words[-1]: int(words[1]) for words in ours}
    assert asked[f"{network}-config"] == 0, asked


def test_clones_do_not_see_each_other(new_manager, store):
    manager = new_manager({"linux": LINUX})
    first = acquired(manager, "linux", "a")
    template = next(iter(store.all())).path
    before = {path.name: path.read_bytes() for path in template.iterdir()}
    first.run("dd if=/dev/zero of=/tmp/full bs=1M count=100 2>/dev/null; true")
    first.run("dd if=/dev/urandom of=/dev/vda bs=1M count=64 2>/dev/null; sync; date -s @0; rm -rf /etc")
    second = acquired(manager, "linux", "b")
    assert second.run("ls /tmp").stdout == ""
    assert second.run("dd if=/dev/vda bs=1M count=64 2>/dev/null | tr -d '\\0' | wc -c").stdout == "0\n"
    assert abs(int(second.run("date +%s").stdout) - time.time()) < 60
    assert second.run("ls /etc/passwd").returncode == 0
    first.kill()
    assert {path.name: path.read_bytes() for path in template.iterdir()} == before, "the template was written"


def test_clones_wake_up_with_the_hosts_clock_and_numbers_of_their_own(new_manager):
    manager = new_manager({"linux": LINUX})
    acquired(manager, "linux", "template")
    numbers, names = [], []
    for test in "abc":
        vm = acquired(manager, "linux", test)
        said = vm.run("date +%s; cat /proc/sys/kernel/random/uuid; mktemp -u")
        clock, number, name = said.stdout.split()
        # The command's own time is not the clock's fault; date tells whole seconds.
        assert -1.5 <= time.time() - int(clock) - said.duration <= 2, "the clone's clock is not the host's"
        numbers.append(number)
        names.append(name)
    assert len(set(numbers)) == len(set(names)) == 3, "clones repeat each other's random numbers"


def test_network_and_forwards_of_a_clone_work(new_manager):
    manager = new_manager({"linux": LINUX})
    ports = set()
    for test in "ab":
        vm = acquired(manager, "linux", test)
        vm.run("mkdir -p /www && echo hello from clone > /www/index.html && httpd -p 80 -h /www")
        answer = vm.wait.http(80, timeout=10)
        assert "hello from clone" in answer.text
        ports.add(vm.address(80))
    assert len(ports) == 2, "both clones have one port"


def test_after_clone_runs_in_each_clone_and_prepare_once(new_manager, tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "hello.sh").write_text("#!/bin/sh\necho hello\n")
    (tmp_path / "app" / "hello.sh").chmod(0o755)
    (tmp_path / "one file").write_text("content")
    manager = new_manager(
        {
            "linux": {
                **LINUX,
                "prepare": [
                    {"put": ["app", "/opt/app"]},
                    {"put": ["one file", "/opt/"]},
                    {"run": "cat /proc/sys/kernel/random/uuid > /prepared"},
                ],
                "after_clone": ["cat /proc/sys/kernel/random/uuid > /cloned"],
            }
        }
    )
    found = []
    for test in "ab":
        vm = acquired(manager, "linux", test)
        assert vm.run("/opt/app/hello.sh; cat '/opt/one file'").stdout == "hello\ncontent"
        found.append(vm.run("cat /prepared /cloned").stdout.split())
    (prepared, cloned), (prepared_too, cloned_too) = found
    assert prepared == prepared_too, "prepare: was done again"
    assert cloned != cloned_too, "after_clone: was not done in each"


def test_prepare_is_done_for_a_vm_that_boots_as_well(new_manager):
    manager = new_manager({"linux": {**LINUX, "start": "boot", "prepare": [{"run": "echo x > /prepared"}]}})
    vm = acquired(manager, "linux")
    assert vm.started_by == "boot"
    assert vm.run("cat /prepared").stdout == "x\n"


def test_what_cannot_be_cloned_is_booted_and_the_reason_told(new_manager):
    config = {**NANO, "arguments": [{"m": "32M"}]}
    manager = new_manager({"nano": config})
    assert acquired(manager, "nano").started_by == "boot"
    assert "says where its memory lies" in last_start(manager)["reason"]


def test_start_clone_says_why_it_cannot_be(new_manager):
    manager = new_manager({"nano": {**NANO, "start": "clone", "arguments": [{"m": "32M"}]}})
    with pytest.raises(NotSupported, match=r"(?s)nano cannot be started as a clone: .*memory.*auto"):
        acquired(manager, "nano")


def test_qemus_own_reason_is_told_and_kept(new_manager):
    # QEMU 7.2 cannot migrate an NVMe controller; newer ones can, and then this is a clone.
    config = {**NANO, "storage": [{"name": "fast", "size": "1M", "interface": "nvme"}]}
    manager = new_manager({"nano": config})
    if acquired(manager, "nano", "a").started_by == "clone":
        pytest.skip("this QEMU can migrate NVMe")
    reason = last_start(manager)["reason"]
    assert "nvme" in reason.lower(), reason
    started = time.monotonic()
    second = new_manager({"nano": config})
    acquired(second, "nano")
    assert last_start(second)["reason"] == reason, "the next run does not know"
    assert time.monotonic() - started < 60
    third = new_manager({"nano": {**config, "start": "clone"}})
    with pytest.raises(NotSupported, match=r"(?i)nvme"):
        acquired(third, "nano")


def test_a_disk_of_raw_arguments_that_is_written_in_place_is_never_shared(new_manager, tmp_path):
    disk = tmp_path / "raw.img"
    disk.write_bytes(b"\0" * (1 << 20))
    manager = new_manager({"nano": {**NANO, "arguments": [{"drive": f"file={disk},format=raw,if=virtio"}]}})
    assert acquired(manager, "nano").started_by == "boot"
    assert "raw.img: the guest writes there directly" in last_start(manager)["reason"]


def test_a_vm_that_cannot_be_cloned_does_not_boot_twice(new_manager, tmp_path, monkeypatch):
    (tmp_path / "counted_preparing.py").write_text(
        "done = []\ndef prepare(vm):\n    done.append(vm.name)\n    vm.run('echo x > /dev/vda; sync')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    disk = tmp_path / "raw.img"
    disk.write_bytes(b"\0" * (1 << 20))
    config = {
        "image": "builtin:linux",
        "arguments": [{"drive": f"file={disk},format=raw,if=virtio"}],
        "prepare": [{"call": "counted_preparing:prepare"}],
    }
    manager = new_manager({"linux": config})
    for test in "ab":
        assert acquired(manager, "linux", test).started_by == "boot"
        manager.end_scope(wanted(manager, "linux", test).scope)
    done = import_module("counted_preparing").done
    assert len(done) == 2, f"a boot that was going to be a template came before a test's own: {done}"


@pytest.mark.parametrize(
    "storage",
    [
        {"name": "d", "size": "8M", "interface": "scsi"},
        {"name": "d", "size": "8M", "interface": "sata"},
        {"name": "d", "size": "8M", "interface": "ide"},
        {"name": "d", "type": "cdrom"},
    ],
    ids=["scsi", "sata", "ide", "cdrom"],
)
def test_disks_of_every_kind_are_cloned(new_manager, storage):
    manager = new_manager({"nano": {**NANO, "storage": [storage, {"name": "e", "size": "8M"}]}})
    for test in "ab":
        vm = acquired(manager, "nano", test)
        assert vm.started_by == "clone", last_start(manager)["reason"]
        vm.console.send("hello\n")
        vm.wait.console("echo: hello", timeout=5)


def test_a_read_only_base_raw_or_qcow2_is_never_written(new_manager, tmp_path):
    raw, qcow2 = tmp_path / "a.raw", tmp_path / "b.qcow2"
    raw.write_bytes(b"base" + b"\0" * ((1 << 20) - 4))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2], check=True)
    before = raw.read_bytes(), qcow2.read_bytes()
    storage = [
        {"name": "a", "type": "raw", "file": str(raw)},
        {"name": "b", "file": str(qcow2)},
    ]
    manager = new_manager({"linux": {**LINUX, "storage": storage}})
    for test in "ab":
        vm = acquired(manager, "linux", test)
        assert vm.run("head -c 4 /dev/vda; head -c 4 /dev/vdb").stdout == "basebase"
        vm.run("echo over > /dev/vda; echo over > /dev/vdb; sync")
    assert (raw.read_bytes(), qcow2.read_bytes()) == before


def test_the_machine_of_a_template_cannot_be_changed(new_manager):
    manager = new_manager({"nano": NANO})
    template = manager.template("nano")
    with manager.start(template, scope="session") as vm:
        assert vm.started_by == "clone"
    with pytest.raises(ConfigError, match="frozen as it is"):
        manager.start(template, memory="32M")


def test_templates_off_boots(new_manager, store):
    manager = new_manager({"nano": NANO}, templates="off")
    assert acquired(manager, "nano").started_by == "boot"
    assert store.all() == []


def test_rebuild_makes_each_template_once_more(new_manager, store):
    acquired(new_manager({"nano": NANO}), "nano")
    first = store.all()[0].path
    manager = new_manager({"nano": NANO}, templates="rebuild")
    for test in "ab":
        acquired(manager, "nano", test)
    assert len(manager.stats()["templates"]) == 1
    assert store.all()[0].path != first


def test_evidence_names_the_template(new_manager):
    manager = new_manager({"nano": NANO})
    vm = acquired(manager, "nano")
    titles = [title for title, _text in vm.report_sections()]
    assert any("clone" in title for title in titles)
    assert Path(vm.workdir).exists()


def test_a_clones_commands_go_by_the_quick_agent(new_manager):
    manager = new_manager({"linux": LINUX})
    for test in "ab":
        vm = acquired(manager, "linux", test)
        assert vm.started_by == "clone"
        assert vm.run("echo on").stdout == "on\n"
        [agent] = [channel for channel in vm.life.channels if channel.name == "agent"]
        assert agent._port.usable, "QEMU's agent had to run it"
