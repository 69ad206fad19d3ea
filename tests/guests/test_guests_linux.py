"""builtin:linux under plain QEMU: what a test may expect of the guest."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from pytest_maqet.guests.builtin import BuiltinGuest

BOARDS = pytest.mark.parametrize("board", ["q35", "pc"])
PROMPT = r"^root@maqet:~# $"
NETWORK = ("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net")


def shell(machine, command: str) -> str:
    """What `command` prints; the console echoes nothing."""
    machine.send(f"{command}; echo end=$?")
    return machine.wait(r"^end=\d+\n").rpartition("end=")[0].replace("root@maqet:~# ", "").strip("\n")


@pytest.fixture
def booted(boot, linux: BuiltinGuest):
    """Boots the guest to its prompt, with the echo off."""

    def start(*arguments: str):
        machine = boot(linux, *(arguments or ("-machine", "q35")))
        machine.wait("^maqet linux: guest ready\n")
        machine.wait(PROMPT)
        # What is typed at the very moment of the prompt may lose a character to the shell's question for the
        # cursor's place; a line that came through whole is answered.
        machine.send("")
        machine.wait(PROMPT)
        machine.send("stty -echo; echo quiet=$?")
        machine.wait(r"^quiet=0\n[\s\S]*" + PROMPT.lstrip("^"))
        return machine

    return start


def test_the_serial_port_has_a_root_shell(booted) -> None:
    machine = booted()
    assert shell(machine, "id -un; hostname; pwd; echo $HOME") == "root\nmaqet\n/root\n/root"
    assert shell(machine, "uname -s; cat /proc/sys/kernel/printk | cut -f1") == "Linux\n4"
    for tool in ("base64", "timeout", "nc", "wget", "httpd", "od", "ip", "mke2fs", "setsid", "stat", "tar"):
        assert shell(machine, f"command -v {tool}"), f"{tool} is missing"
        assert shell(machine, f"ls /bin/{tool} /sbin/{tool} /usr/bin/{tool} /usr/sbin/{tool} 2>&-"), (
            f"{tool} is not to be found by programs other than the shell"
        )


def test_jobs_in_the_background_make_no_noise(booted) -> None:
    machine = booted()
    assert shell(machine, "sleep 0.1 & wait; true") == "", "a job's number or its end was told"
    assert shell(machine, "echo quiet") == "quiet"


@BOARDS
def test_the_power_button_powers_off(booted, board: str) -> None:
    machine = booted("-machine", board)
    machine.command("system_powerdown")
    assert machine.event("SHUTDOWN")["data"] == {"guest": True, "reason": "guest-shutdown"}


def test_poweroff_and_reboot(booted) -> None:
    machine = booted()
    machine.send("reboot")
    assert machine.event("RESET")["data"]["guest"] is True
    machine.wait("^maqet linux: guest ready\n")
    machine.wait(PROMPT)
    machine.send("poweroff")
    assert machine.event("SHUTDOWN")["data"]["guest"] is True


def test_a_panic_reaches_qemu_and_the_console(booted) -> None:
    machine = booted()
    machine.send("echo c > /proc/sysrq-trigger")
    machine.wait("Kernel panic - not syncing")
    assert machine.event("GUEST_PANICKED")["data"]["action"] == "pause"


def test_the_network_is_up_at_ready(booted) -> None:
    machine = booted("-machine", "q35", *NETWORK)
    assert shell(machine, "ip -4 -o addr show eth0 | awk '{print $4}'") == "10.0.2.15/24"
    assert shell(machine, "ip route | head -1").startswith("default via 10.0.2.2")
    assert shell(machine, "cat /etc/resolv.conf") == "nameserver 10.0.2.3"


def test_a_network_without_dhcp_does_not_keep_it_from_ready(boot, linux: BuiltinGuest) -> None:
    with_dhcp, without = (
        boot(linux, "-machine", "q35", "-netdev", backend, "-device", "virtio-net-pci,netdev=net")
        for backend in ("user,id=net", "hubport,id=net,hubid=7")
    )
    for machine in (with_dhcp, without):
        machine.wait("^maqet linux: guest ready\n")


def test_sshd_answers(booted) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    forward = f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22"
    booted("-machine", "q35", "-netdev", forward, "-device", "virtio-net-pci,netdev=net")
    deadline = time.monotonic() + 60
    greeting = b""
    while not greeting and time.monotonic() < deadline:
        # Until sshd listens, the forwarded port takes the connection and drops it.
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            greeting = client.recv(64)
    assert greeting.startswith(b"SSH-2.0-dropbear"), f"the guest's ssh port said {greeting!r}"


def test_the_guest_agent_answers(booted, tmp_path: Path) -> None:
    path = tmp_path / "agent"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        machine = booted(
            *("-machine", "q35", "-chardev", f"socket,id=agent,path={path}"),
            *("-device", "virtio-serial", "-device"),
            "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
        )
        agent, _ = listening.accept()
    with agent:
        agent.settimeout(30)
        agent.sendall(b'{"execute": "guest-sync", "arguments": {"id": 4711}}\n')
        assert b"4711" in agent.recv(4096)
    assert shell(machine, "ls /dev/virtio-ports") == "org.qemu.guest_agent.0"


def disk_arguments(folder: Path, *devices: str) -> list[str]:
    """A 16 MiB disk for each device, with drives named d0, d1, ..."""
    arguments: list[str] = []
    for number, device in enumerate(devices):
        image = folder / f"disk{number}"
        image.touch()
        os.truncate(image, 16 << 20)
        arguments += ["-drive", f"if=none,id=d{number},format=raw,file={image}"]
        arguments += ["-device", f"{device},drive=d{number}"]
    return arguments


def test_disks_are_there_at_ready(booted, tmp_path: Path) -> None:
    disks = disk_arguments(tmp_path, "virtio-blk-pci", "scsi-hd,bus=scsi.0", "nvme,serial=x")
    machine = booted("-machine", "q35", "-device", "virtio-scsi-pci,id=scsi", *disks)
    for name in ("vda", "sda", "nvme0n1"):
        assert shell(machine, f"cat /sys/block/{name}/size") == "32768", f"the disk {name} is not there"
    assert shell(machine, "mke2fs /dev/vda >/dev/null && mount /dev/vda /mnt && df /mnt | grep -c vda") == "1"
    assert shell(machine, "mkdosfs /dev/sda && mkdir /m && mount -t vfat /dev/sda /m && echo yes") == "yes"


def test_ide_disks_are_there_at_ready(booted, tmp_path: Path) -> None:
    machine = booted("-machine", "pc", *disk_arguments(tmp_path, "ide-hd", "ide-cd"))
    assert shell(machine, "cat /sys/block/sda/size /sys/block/sr0/size") == "32768\n32768"


def test_a_device_that_is_plugged_in_gets_its_driver(booted, tmp_path: Path) -> None:
    machine = booted("-machine", "q35", "-device", "pcie-root-port,id=hotplug0,slot=1")
    machine.command("blockdev-add", driver="null-co", **{"node-name": "more", "size": 1 << 20})
    machine.command("device_add", driver="virtio-blk-pci", drive="more", bus="hotplug0", id="more0")
    wait = "for i in $(seq 100); do [ -b /dev/vda ] && break; sleep 0.1; done; cat /sys/block/vda/size"
    assert shell(machine, wait) == "2048"


def test_a_second_cpu_and_more_memory(booted) -> None:
    machine = booted("-machine", "q35", "-smp", "2", "-m", "1G")
    assert shell(machine, "nproc") == "2"
    assert int(shell(machine, "awk '/MemTotal/ {print $2}' /proc/meminfo")) > 900_000


def test_it_boots_in_a_few_seconds(boot, linux: BuiltinGuest) -> None:
    machine = boot(linux, "-machine", "q35")
    machine.wait("^maqet linux: guest ready\n")
    spent = machine.cpu_seconds()
    assert time.monotonic() - machine.started < 60
    assert spent < 20, f"a boot took {spent:.1f} s of CPU time"
