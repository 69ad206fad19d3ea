"""A fresh machine for each test, without any library: QEMU's process, its serial port as our pipe.

What one writes by hand, at its best: nothing polls, nothing sleeps, the machine has no device that the tests
do not use, and its end is a SIGKILL.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import time

import pytest

PROMPT = re.compile(rb"root@maqet:\S+# ")
#: Seconds for a boot, or for a command.
PATIENCE = 120.0


class Guest:
    """A shell on the serial port of a QEMU process."""

    def __init__(self, qemu: subprocess.Popen[bytes]) -> None:
        self._qemu = qemu
        self._await(re.compile(rb"guest ready[^$]*?" + PROMPT.pattern))

    def run(self, command: str) -> str:
        """What the command prints, without the last line break."""
        self._qemu.stdin.write(f"{command}\n".encode())
        said = self._await(PROMPT).decode().replace("\r\n", "\n")
        return said.partition("\n")[2].rstrip("\n")  # the first line is the echo

    def _await(self, pattern: re.Pattern[bytes]) -> bytes:
        """What comes before the pattern."""
        deadline, seen, serial = time.monotonic() + PATIENCE, b"", self._qemu.stdout.fileno()
        while not (found := pattern.search(seen)):
            readable, _, _ = select.select([serial], [], [], deadline - time.monotonic())
            more = os.read(serial, 4096) if readable else b""
            assert more, f"no {pattern.pattern!r} on the serial port, only {seen[-500:]!r}"
            seen += more
        return seen[: found.start()]


@pytest.fixture
def guest():
    machine = {
        name: os.environ[f"PEER_{name.upper()}"]
        for name in ("machine", "accel", "cpu", "smp", "m", "kernel", "initrd", "append")
    }
    with subprocess.Popen(
        [os.environ["PEER_QEMU"], "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"]
        + [part for name, value in machine.items() for part in (f"-{name}", value)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as qemu:
        try:
            yield Guest(qemu)
        finally:
            qemu.kill()
