"""What a running VM offers to the rest of the host: no TCP port but those that its configuration forwards."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from pytest_maqet import VirtualMachine

_LISTEN = "0A"


def listening(pid: int) -> set[tuple[str, int]]:
    """Address and port of every TCP socket that a process listens on (proc(5), /proc/PID/net/tcp)."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        link = str(entry.readlink())
        if link.startswith("socket:["):
            inodes.add(link[8:-1])
    found = set()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == _LISTEN and words[9] in inodes:
                address, _, port = words[1].partition(":")
                pieces = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
                text = socket.inet_ntop(family, struct.pack(f"={len(pieces)}I", *pieces))
                found.add((text, int(port, 16)))
    return found


def test_a_vm_with_a_screen_and_every_port_of_ours_listens_on_no_tcp_port(boot) -> None:
    vm: VirtualMachine = boot(vga="std", serial=["main", "log"], network=[{"user": {}}])
    assert listening(vm.pid) == set()


def test_forwards_are_for_this_host_only(boot) -> None:
    vm: VirtualMachine = boot(network=[{"user": {"forward": {"http": 80}}}])
    host, port = vm.address(80)
    assert listening(vm.pid) == {(host, port)}
    assert host == "127.0.0.1"
