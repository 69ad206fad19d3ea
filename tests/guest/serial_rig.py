"""A serial line without a machine: a shell on a pseudo-terminal, its output in a log file, its input behind a
unix socket, as QEMU's `-chardev socket,…,logfile=…` has them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import random
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_maqet.file_watch import lease_watch, release_watch
from pytest_maqet.guest.console_log import ConsoleLog
from pytest_maqet.guest.serial_shell import SerialShell
from pytest_maqet.guest.serial_writer import SerialWriter
from pytest_maqet.loop import Pulse

SHELLS = {
    "dash": ["dash", "-i"],
    "bash": ["bash", "--norc", "-i"],
    "ash": ["busybox", "ash", "-i"],
}


@dataclass(frozen=True)
class Step:
    expect: str
    send: str | None = None
    send_env: str | None = None


@dataclass(frozen=True)
class Access:
    user: str | None = None
    password_env: str | None = None
    prompt: str | None = None
    login: Sequence[Step] = ()


class PtyLine:
    """The host's side of the pseudo-terminal."""

    def __init__(self, directory: Path, program: Sequence[str], noise: float = 0.0) -> None:
        self.socket_path = directory / "line"
        self.log_path = directory / "line.log"
        self._noise = noise
        self._random = random.Random(7)
        self._log = self.log_path.open("ab", buffering=0)
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            ["setsid", "-c", *program],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "PS1": "$ "},
        )
        os.close(slave)

    async def serve(self) -> asyncio.AbstractServer:
        os.set_blocking(self._master, False)
        asyncio.get_running_loop().add_reader(self._master, self._pump)
        return await asyncio.start_unix_server(self._client, self.socket_path)

    def _pump(self) -> None:
        with contextlib.suppress(OSError):
            data = os.read(self._master, 65536)
            if self._noise and self._random.random() < self._noise:
                cut = self._random.randrange(len(data) + 1)
                data = data[:cut] + b"[   12.345678] eth0: link is up (100 Mbps)\r\n" + data[cut:]
            self._log.write(data)

    def say(self, data: bytes) -> None:
        self._log.write(data)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while data := await reader.read(4096):
                while data:
                    try:
                        data = data[os.write(self._master, data) :]
                    except BlockingIOError:
                        await asyncio.sleep(0.001)
        writer.close()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._master)
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        self._log.close()


@dataclass(frozen=True)
class SerialRig:
    pty: PtyLine
    log: ConsoleLog
    line: SerialWriter
    changed: Pulse
    shell: SerialShell


@contextlib.asynccontextmanager
async def serial_rig(
    program: Sequence[str], access: Access | None = None, noise: float = 0.0
) -> AsyncIterator[SerialRig]:
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory(prefix="serial") as directory:
        terminal = PtyLine(Path(directory), program, noise)
        server = await terminal.serve()
        changed = Pulse()
        log = ConsoleLog(terminal.log_path, changed.beat)
        watch = lease_watch(loop)
        number = watch.add(terminal.log_path, log.read)
        line = SerialWriter(terminal.socket_path)
        shell = SerialShell(log, line, changed, access or Access(), "web")
        try:
            yield SerialRig(terminal, log, line, changed, shell)
        finally:
            await shell.close()
            await line.close()
            watch.remove(number)
            release_watch(loop)
            log.close()
            server.close()
            terminal.close()
