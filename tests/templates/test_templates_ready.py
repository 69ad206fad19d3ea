"""`vm.restore("ready")`: the ready state comes back, on the same handle and ports, however the VM ended."""

from __future__ import annotations

import pytest
from manager_rig import acquired

from pytest_maqet.errors import NotSupported

LINUX = {
    "image": "builtin:linux",
    "memory": "256M",
    "network": [{"user": {"forward": {"http": 80}}}],
    "storage": [{"name": "data", "size": "16M"}],
}


@pytest.mark.parametrize("start", ["auto", "boot"])
def test_the_ready_state_comes_back_with_its_ports(new_manager, start):
    manager = new_manager({"linux": {**LINUX, "start": start}})
    vm = acquired(manager, "linux")
    port, pid = vm.address(80), vm.pid
    vm.run("echo x > /tmp/x; echo y > /dev/vda; sync")
    vm.restore("ready")
    assert vm.address(80) == port
    assert vm.pid != pid
    assert vm.run("ls /tmp; head -c 1 /dev/vda | tr '\\0' 0").stdout == "0"
    vm.run("mkdir -p /www; echo back > /www/index.html; httpd -p 80 -h /www")
    assert "back" in vm.wait.http(80, timeout=10).text


@pytest.mark.parametrize("end", ["panic", "poweroff", "kill"])
def test_it_comes_back_whatever_has_become_of_the_vm(new_manager, end):
    manager = new_manager({"nano": {"image": "builtin:nano", "memory": "16M"}})
    vm = acquired(manager, "nano")
    if end == "panic":
        vm.console.send("panic\n")
        vm.wait.panic(timeout=10)
    elif end == "poweroff":
        vm.powerdown()
        vm.wait.shutdown(timeout=10)
    else:
        vm.kill()
    vm.restore("ready")
    assert vm.status == "running"
    assert vm.health() is None
    vm.console.send("again\n")
    vm.wait.console("echo: again", timeout=5)


def test_a_checkpoint_of_that_name_goes_before(new_manager):
    manager = new_manager({"nano": {"image": "builtin:nano", "memory": "16M"}})
    vm = acquired(manager, "nano")
    vm.checkpoint("ready")
    pid = vm.pid
    vm.restore("ready")
    assert vm.pid == pid, "the test's own checkpoint is restored in place"


def test_a_vm_that_cannot_be_a_clone_says_why(new_manager):
    manager = new_manager({"nano": {"image": "builtin:nano", "arguments": [{"m": "32M"}]}})
    vm = acquired(manager, "nano")
    with pytest.raises(NotSupported, match=r"ready state: .*memory"):
        vm.restore("ready")
    assert vm.status == "running", "it was given up all the same"
