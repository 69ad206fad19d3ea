"""Work in a Linux guest: commands, processes, ports that tell the truth, disks of one's own."""

import hashlib
import subprocess
from functools import partial

import pytest

from pytest_maqet import ChannelError, CommandError, CommandTimeout, NotSupported, WaitTimeout
from pytest_maqet.machine.starting import new_life


def test_run(marked_linux):
    result = marked_linux.run("echo out; echo err >&2")
    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 0)
    assert marked_linux.channel == "agent"


def test_a_failing_command_is_told_with_its_output(marked_linux):
    with pytest.raises(CommandError, match=r"status 3[\s\S]*no such thing") as caught:
        marked_linux.run("echo no such thing >&2; exit 3")
    assert caught.value.returncode == 3
    assert caught.value.stderr == "no such thing\n"


def test_a_command_that_does_not_end_is_ended(marked_linux):
    with pytest.raises(CommandTimeout, match="partly") as caught:
        marked_linux.run("echo partly; sleep 1000", timeout=0.2)
    assert caught.value.stdout == "partly\n"
    # The guest has no pgrep; the brackets keep the search from finding itself.
    sleepers = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c '[s]leep 1000'"
    assert marked_linux.run(sleepers, check=False).stdout == "0\n", "the command goes on in the guest"
    with marked_linux.spawn("sleep 1000"):
        assert marked_linux.run(sleepers, check=False).stdout != "0\n", "the search finds nothing at all"


def test_spawn_goes_on_until_its_block_ends(marked_linux):
    with marked_linux.spawn("while :; do date; sleep 1; done") as process:
        assert process.returncode is None
        assert marked_linux.run(["kill", "-0", str(process.pid)]).returncode == 0
    assert marked_linux.run(["kill", "-0", str(process.pid)], check=False).returncode != 0


def test_the_console_runs_commands_too(marked_linux):
    result = marked_linux.console.run("printf 'a\\000b'; exit 4", check=False, encoding=None)
    assert (result.stdout, result.returncode) == (b"a\0b", 4)


def test_a_wait_for_a_port_means_a_listener_in_the_guest(marked_linux):
    host, port = marked_linux.address(80)
    assert host == "127.0.0.1"
    assert port > 0
    with pytest.raises(WaitTimeout, match=r"listener on TCP port 80[\s\S]*listening in the guest"):
        marked_linux.wait.port(80, timeout=0.5)  # a connect to the forwarded port would have succeeded
    with marked_linux.spawn("httpd -f -p 80 -h /"):
        marked_linux.wait.port(80)
        answer = marked_linux.wait.http(80, "/etc/passwd")
        assert answer.text.startswith("root:")
        assert marked_linux.url(80, "x").startswith("http://127.0.0.1:")
    marked_linux.wait.closed(80)


def test_http_waits_for_the_status(marked_linux):
    with marked_linux.spawn("httpd -f -p 80 -h /"):
        assert marked_linux.wait.http(80, "/nothing-here", status=404).status == 404
        with pytest.raises(WaitTimeout, match=r"status 200 for GET /nothing-here[\s\S]*status 404"):
            marked_linux.wait.http(80, "/nothing-here", timeout=0.5)


def test_a_banner_comes_through_the_forward(marked_linux):
    with marked_linux.spawn("while :; do echo SMTP ready | nc -l -p 2525; done"):
        assert b"SMTP" in marked_linux.wait.port(2525, banner="^SMTP")


def test_succeeds_and_fails(marked_linux):
    marked_linux.run("(sleep 1; touch /tmp/flag) >/dev/null 2>&1 &")
    assert marked_linux.wait.succeeds("ls /tmp/flag").stdout == "/tmp/flag\n"
    marked_linux.run("(sleep 1; rm /tmp/flag) >/dev/null 2>&1 &")
    assert marked_linux.wait.fails("ls /tmp/flag").returncode != 0
    with pytest.raises(WaitTimeout, match=r"'false' to succeed[\s\S]*status 1"):
        marked_linux.wait.succeeds("false", timeout=0.5)


def test_agent(marked_linux):
    marked_linux.wait.agent()


def test_a_guest_without_a_network_has_no_ports(boot):
    with pytest.raises(NotSupported, match="no user network"):
        boot().address(80)


def test_disks_are_overlays_and_survive_a_restart(boot, tmp_path):
    base = tmp_path / "base, with=odd name.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(base), "8M"], check=True)
    before = hashlib.sha256(base.read_bytes()).digest()
    vm = boot("builtin:linux", storage=[{"name": "data", "file": str(base)}], timeouts={"ready": 120})
    vm.run("echo kept > /dev/vda; sync")
    vm.stop()
    vm.start()
    assert vm.run("head -n1 /dev/vda").stdout == "kept\n", "start() boots from the current disks"
    assert hashlib.sha256(base.read_bytes()).digest() == before, "the base image was written"
    vm.relaunch(partial(new_life, vm.config, vm.host))
    vm.wait_ready()
    assert vm.run("head -c4 /dev/vda", encoding=None).stdout == b"\0\0\0\0", "a relaunched VM is pristine"
    [row] = vm.storage_info()
    assert (row["name"], row["format"], row["exists"]) == ("data", "qcow2", True)


def test_reboot_asks_the_guest(boot):
    vm = boot("builtin:linux")
    vm.run("touch /tmp/before")
    vm.reboot()
    assert vm.run("ls /tmp/before", check=False).returncode != 0, "the guest did not reboot"


def test_a_command_ends_at_once_when_the_agent_closes_its_port(boot):
    vm = boot("builtin:linux", timeouts={"command": 60})
    with pytest.raises(ChannelError, match="agent has closed its port while it ran a command"):
        vm.run("killall qemu-ga; sleep 4711")  # its time-out would be a CommandTimeout
    assert vm.run("echo still here").stdout == "still here\n", "the next command found no channel"
