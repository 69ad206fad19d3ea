"""Plain QEMU for the tests of the embedded guests: no part of the package but the guests themselves."""

from __future__ import annotations

import json
import re
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_maqet.guests.builtin import BuiltinGuest, builtin_guest

#: How long any single thing may take here, in seconds: TCG on a loaded machine.
PATIENCE = 60.0
# The shell asks a terminal where its cursor is.
_ESCAPE = re.compile(r"\x1b\[6n")


class RawMachine:
    """A QEMU process with a serial port and a monitor on sockets of ours; ended by its pid."""

    def __init__(self, arguments: list[str]) -> None:
        self.serial, its_serial = socket.socketpair()
        self._monitor, its_monitor = socket.socketpair()
        self.seen = ""
        self._events: list[dict[str, Any]] = []
        self._unread = b""
        fds = (its_serial.fileno(), its_monitor.fileno())
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [
                *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-accel", "tcg", "-cpu", "max"),
                *("-m", "256", "-display", "none", "-action", "panic=pause,shutdown=pause"),
                *("-chardev", f"socket,id=serial,fd={fds[0]}", "-serial", "chardev:serial"),
                *("-chardev", f"socket,id=qmp,fd={fds[1]}", "-mon", "chardev=qmp,mode=control"),
                *("-device", "pvpanic", *arguments),
            ],
            pass_fds=fds,
            stderr=subprocess.PIPE,
        )
        its_serial.close()
        its_monitor.close()
        self._next_message()
        self.command("qmp_capabilities")

    def send(self, line: str) -> None:
        self.serial.sendall(line.encode() + b"\n")

    def wait(self, pattern: str, timeout: float = PATIENCE) -> str:
        """The console's text up to and including `pattern`; what was waited for is not looked at again."""
        deadline = time.monotonic() + timeout
        while not (match := re.search(pattern, self.seen, re.MULTILINE)):
            assert self._pump(deadline), (
                f"no {pattern!r} on the console in {timeout} s, only:\n{self.seen}{self._said()}"
            )
        text, self.seen = self.seen[: match.end()], self.seen[match.end() :]
        return text

    def command(self, name: str, **arguments: Any) -> Any:
        self._monitor.sendall(json.dumps({"execute": name, "arguments": arguments}).encode())
        while True:
            message = self._next_message()
            assert "error" not in message, f"{name}: {message}"
            if "return" in message:
                return message["return"]
            self._events.append(message)

    def event(self, name: str) -> dict[str, Any]:
        while True:
            for index, event in enumerate(self._events):
                if event.get("event") == name:
                    return self._events.pop(index)
            self._events.append(self._next_message())

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def close(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.serial.close()
        self._monitor.close()

    def _next_message(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while b"\n" not in self._unread:
            assert self._pump(deadline), f"nothing from QEMU's monitor{self._said()}"
        line, _, self._unread = self._unread.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def _pump(self, deadline: float) -> bool:
        """Take in what has come, of both: a guest whose console is not read stands still."""
        readable, _, _ = select.select(
            [self.serial, self._monitor], [], [], max(0.0, deadline - time.monotonic())
        )
        for source in readable:
            data = source.recv(65536)
            if not data:
                return False
            if source is self._monitor:
                self._unread += data
            else:
                text = self.seen + data.decode(errors="replace").replace("\r", "")
                self.seen = _ESCAPE.sub("", text)
        return bool(readable)

    def _said(self) -> str:
        if self.process.poll() is None:
            return ""
        assert self.process.stderr is not None
        return f"; QEMU ended with {self.process.returncode}: {self.process.stderr.read().decode()}"


Boot = Callable[..., RawMachine]


@pytest.fixture
def boot() -> Iterator[Boot]:
    """Starts plain QEMU: `boot(guest, "-machine", "q35", …)`; all are ended with the test."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    machines: list[RawMachine] = []

    def start(guest: BuiltinGuest, *arguments: str) -> RawMachine:
        given = [*arguments]
        if guest.image is not None:
            given += ["-drive", f"if=none,id=root,format=raw,readonly=on,file={guest.image}"]
            given += ["-device", "virtio-blk-pci,drive=root"]
        else:
            given += ["-kernel", str(guest.kernel), "-initrd", str(guest.initrd), "-append", guest.append]
        machines.append(RawMachine(given))
        return machines[-1]

    yield start
    for machine in machines:
        machine.close()


@pytest.fixture(scope="session")
def nano() -> BuiltinGuest:
    return builtin_guest("builtin:nano")


@pytest.fixture(scope="session")
def linux() -> BuiltinGuest:
    """The guest in the user's cache, built if it is not there yet."""
    return builtin_guest("builtin:linux")
