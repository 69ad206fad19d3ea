"""A real distribution in the VM: what the slow tests and the figures rest on."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from pytest_maqet import VirtualMachine

pytestmark = pytest.mark.slow


def test_it_is_debian_booted_by_systemd(server: VirtualMachine):
    assert "VERSION_CODENAME=bookworm" in server.run("cat /etc/os-release").stdout
    assert server.run("cat /proc/1/comm").stdout == "systemd\n"
    assert server.channel == "agent", "commands go through the guest agent"


def test_no_unit_has_failed(server: VirtualMachine):
    state = server.run("systemctl is-system-running --wait", check=False).stdout.strip()
    failed = server.run("systemctl --failed --no-legend --plain").stdout
    assert (state, failed) == ("running", "")


def test_the_console_has_a_root_shell(server: VirtualMachine):
    assert server.console.run("id -un").stdout == "root\n"


def test_the_root_file_system_is_a_disk(server: VirtualMachine):
    assert server.run("findmnt -no SOURCE,FSTYPE /").stdout.split() == ["/dev/vda", "ext4"]
    server.run(["sh", "-c", "echo kept > /root/mark && sync && echo 3 > /proc/sys/vm/drop_caches"])
    assert server.run("cat /root/mark").stdout == "kept\n"


def test_the_network_has_an_address_and_a_way_out(server: VirtualMachine):
    assert "inet 10.0.2.15/24" in server.run("ip -4 address show scope global").stdout
    assert "default via 10.0.2.2" in server.run("ip route").stdout
    server.run("ping -c 1 -W 20 10.0.2.2")


def test_sshd_answers_through_a_forwarded_port(server: VirtualMachine):
    assert server.wait.port(22, banner="^SSH-2.0-OpenSSH.*Debian")
    if shutil.which("ssh") is None:
        pytest.skip("the banner was there; logging in needs an ssh client on this host")
    address, port = server.address(22)
    words = [
        "ssh",
        "-F",
        "none",
        "-o",
        "BatchMode=yes",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "LogLevel=ERROR",
    ]
    words += ["-o", "UserKnownHostsFile=/dev/null", "-p", str(port), f"root@{address}", "hostname"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
    assert (done.stdout, done.returncode) == ("debian-12\n", 0), done.stderr


@pytest.mark.parametrize(
    "module", ["9p", "ahci", "nvme", "virtiofs", "vmw_vsock_virtio_transport", "pvpanic-pci"]
)
def test_the_kernel_has_drivers_for_what_a_vm_may_have(server: VirtualMachine, module: str):
    server.run(f"modprobe -n {module}")


def test_the_kernel_takes_the_machines_generation_id(server: VirtualMachine):
    config = server.run("grep -E '^CONFIG_(VMGENID|HW_RANDOM_VIRTIO|PVPANIC)=' /boot/config-*").stdout
    assert "CONFIG_VMGENID=y" in config, "the kernel reseeds its random numbers when a clone wakes"


def test_a_stop_is_a_clean_shutdown_and_the_disk_is_kept(server: VirtualMachine):
    server.run("echo before > /root/stopped")
    server.set_mark()
    server.stop()
    assert "reboot: Power down" in server.console_log.read_text(errors="replace"), (
        "the guest went down by itself"
    )
    server.start()
    assert server.run("cat /root/stopped").stdout == "before\n"
    last = server.run("journalctl --boot=-1 --quiet --no-pager").stdout
    assert "Reached target poweroff.target" in last, f"the shutdown was not clean:\n{last[-2000:]}"
    assert "recovering journal" not in server.run("dmesg").stdout, "the file system had been unmounted"
