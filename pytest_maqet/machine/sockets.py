"""Listening sockets that QEMU inherits: bound by us before it exists, so that nobody has to poll for them."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pytest_maqet.qemu.inputs import SerialPort
from pytest_maqet.runs.vm_directory import VmDirectory


@dataclass(frozen=True)
class Sockets:
    """The descriptors of one start's sockets."""

    monitors: tuple[int, ...]
    serial: tuple[SerialPort, ...]
    agent: int | None
    wake: int | None
    exec: int | None


def listen(
    directory: VmDirectory, serial: Sequence[str], stack: ExitStack, *, monitors: int, agent: bool
) -> Sockets:
    """Bind everything a VM in `directory` listens on; `stack` closes our ends once QEMU has them."""
    ports = []
    for name in serial:
        log = directory.serial_log(name)
        os.close(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        ports.append(SerialPort(name, _bound(directory.serial_socket(name), stack), log))
    return Sockets(
        monitors=tuple(_bound(directory.monitor_socket(number), stack) for number in range(monitors)),
        serial=tuple(ports),
        agent=_bound(directory.agent_socket, stack) if agent else None,
        wake=_bound(directory.wake_socket, stack) if agent else None,
        exec=_bound(directory.exec_socket, stack) if agent else None,
    )


def _bound(path: Path, stack: ExitStack) -> int:
    path.unlink(missing_ok=True)
    listening = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    listening.bind(str(path))
    path.chmod(0o600)
    listening.listen(16)
    return listening.fileno()
