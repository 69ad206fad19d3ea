"""The names of everything that one QEMU has on disk."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from pytest_maqet.runs import keeper

#: The longest readable part of a file name made from a name in the configuration, in bytes.
LONGEST_STEM = 16
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


def file_stem(name: str) -> str:
    """`name` as a short part of a file name; different names give different stems.

    Names of at most 16 letters, digits, `-` and `_` stay as they are; others are shortened and get a digest.
    """
    if 0 < len(name) <= LONGEST_STEM and not _UNSAFE.search(name):
        return name
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
    return f"{_UNSAFE.sub('_', name)[:9]}.{digest[:6]}"


@dataclass(frozen=True)
class VmDirectory:
    """The directory of one VM in a run: sockets, disks, logs, and the records of its process."""

    path: Path

    @property
    def pid_file(self) -> Path:
        """QEMU's pid, written by its keeper. Only `QemuProcess.attach` may judge it."""
        return self.path / keeper.PID_FILE

    @property
    def qemu_pid_file(self) -> Path:
        """For QEMU's own `-pidfile`: it holds a POSIX lock on that while it lives, so strays can be found."""
        return self.path / "qemu.pid"

    @property
    def exit_file(self) -> Path:
        """QEMU's exit status; as long as there is none, the pid is QEMU's."""
        return self.path / keeper.EXIT_FILE

    @property
    def keeper_lock(self) -> Path:
        """Held by the keeper (POSIX lock) while it lives."""
        return self.path / keeper.KEEPER_LOCK

    @property
    def keeper_log(self) -> Path:
        """What the keeper itself complained of; normally empty."""
        return self.path / "keeper.log"

    @property
    def keep_file(self) -> Path:
        """Where this exists, QEMU outlives its owner."""
        return self.path / keeper.KEEP_FILE

    @property
    def stderr_log(self) -> Path:
        """QEMU's stdout and stderr."""
        return self.path / keeper.STDERR_LOG

    @property
    def record_file(self) -> Path:
        """What another worker must know to use this VM."""
        return self.path / "vm.json"

    @property
    def agent_socket(self) -> Path:
        """The guest agent's channel."""
        return self.path / "agent.sock"

    @property
    def wake_socket(self) -> Path:
        """Where a guest that resumes from a frozen state is put right (guest/wake_port.py)."""
        return self.path / "wake.sock"

    @property
    def exec_socket(self) -> Path:
        """Where maqet-exec runs commands in builtin:linux (guest/exec_port.py)."""
        return self.path / "exec.sock"

    def monitor_socket(self, number: int) -> Path:
        """The QMP monitor with that number, from 0."""
        return self.path / f"qmp{number}.sock"

    def monitor_claim(self, number: int) -> Path:
        """Locked (flock) by the one client of that monitor."""
        return self.path / f"qmp{number}.claim"

    def serial_socket(self, name: str) -> Path:
        """The serial port's socket, to write to."""
        return self.path / f"serial-{file_stem(name)}.sock"

    def serial_log(self, name: str) -> Path:
        """The serial port's log, to read from."""
        return self.path / f"serial-{file_stem(name)}.log"

    @property
    def checkpoint_book(self) -> Path:
        """Which checkpoints there are."""
        return self.path / "checkpoints.json"

    def checkpoint_memory(self, tag: str) -> Path:
        """The memory of the checkpoint with that tag."""
        return self.path / f"memory-{file_stem(tag)}.qcow2"

    def disk(self, name: str, suffix: str = ".qcow2") -> Path:
        """The disk of that name, gone with the VM."""
        return self.path / f"disk-{file_stem(name)}{suffix}"
