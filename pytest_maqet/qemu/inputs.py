"""What a command line is built from besides the configuration: what was made for this one start."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

#: QEMU refuses longer node names (include/block/block-common.h, qapi/block-core.json: "node-name").
_LONGEST_NODE_NAME = 31

Interface = Literal["virtio", "ide", "sata", "scsi", "nvme", "none"]


def node_name(name: str) -> str:
    """The name of a drive's block node: the drive's own where QEMU takes it, else one made from it.

    QEMU wants a letter, then letters, digits, `-`, `.` and `_`, 31 in all.
    """
    if re.fullmatch(rf"[A-Za-z][A-Za-z0-9._-]{{0,{_LONGEST_NODE_NAME - 1}}}", name):
        return name
    readable = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    return f"d-{readable[:18]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Drive:
    """A disk or CD drive as this start has it: `file` is the overlay, or the image where nothing writes.

    `file` None is a CD drive without a disc. `node_name` names the block node to QMP; made from `name` when
    left out. With `interface` "none" there is the node and no device. `volatile`: nobody needs the content
    once the host crashes, so QEMU need not wait for the host's disk.
    """

    name: str
    file: Path | None
    format: str = "qcow2"
    interface: Interface = "virtio"
    readonly: bool = False
    media: Literal["disk", "cdrom"] = "disk"
    node_name: str = ""
    volatile: bool = True

    def __post_init__(self) -> None:
        if not self.node_name:
            object.__setattr__(self, "node_name", node_name(self.name))


@dataclass(frozen=True)
class SerialPort:
    """A serial port: `fd` is a listening unix socket, `logfile` gets all that the guest sends."""

    name: str
    fd: int
    logfile: Path


@dataclass(frozen=True)
class Ram:
    """The file behind the guest's memory, `size` bytes big.

    `shared`: what the guest writes goes into the file, which makes it a template's; else the file is only
    read, and each page that the guest writes becomes this VM's own. `id` names the memory in saved states.
    """

    file: Path
    size: int
    shared: bool
    id: str = "ram"


@dataclass(frozen=True)
class Inputs:
    """All that one start brings: drives, boot files, and listening sockets as descriptors.

    `wake` and `exec` need `agent`: their ports share a bus.
    `incoming`: QEMU waits for a migrated state instead of booting. `ram` None is memory without a file.
    `forwards` false leaves the host's ports out of the network; `host_ports` are those to take for guest
    ports where it must not be any free one. `inherited` are descriptors that QEMU just keeps open.
    `generation_id`: the guest's kernel is told when it goes on as a copy (by ACPI).
    """

    drives: tuple[Drive, ...] = ()
    kernel: Path | None = None
    initrd: Path | None = None
    append: str | None = None
    monitors: tuple[int, ...] = ()
    serial: tuple[SerialPort, ...] = ()
    agent: int | None = None
    wake: int | None = None
    exec: int | None = None
    pidfile: Path | None = None
    incoming: bool = False
    ram: Ram | None = None
    forwards: bool = True
    host_ports: Mapping[int, int] = field(default_factory=dict)
    inherited: tuple[int, ...] = ()
    generation_id: bool = True

    @property
    def fds(self) -> tuple[int, ...]:
        """Every descriptor QEMU must inherit under the same number."""
        ports = (fd for fd in (self.agent, self.wake, self.exec) if fd is not None)
        return (*self.monitors, *(port.fd for port in self.serial), *ports, *self.inherited)
