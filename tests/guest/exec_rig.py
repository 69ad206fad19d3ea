"""maqet-exec on this host: the checked-in program, and one that this host's compiler makes, over a socket."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from pytest_maqet.deadline import Deadline
from pytest_maqet.guest.commands import CommandOutcome, CommandRequest
from pytest_maqet.guest.exec_port import ExecPort
from pytest_maqet.guests.initramfs import EXEC_HELPER

SOURCE = EXEC_HELPER.with_suffix(".c")
ENVIRONMENT = {"PATH": "/nowhere:/usr/bin:/bin", "HOME": "/home", "WHERE": "here"}

Work = Callable[["Server"], Awaitable[None]]


def built(target: Path) -> Path | None:
    """The program as the command in its source makes it here; None without a compiler."""
    if shutil.which("gcc") is None:
        return None
    found = re.search(r"gcc (.*?) maqet-exec\.c -o", SOURCE.read_text().replace("\n *", " "), re.DOTALL)
    assert found is not None, "the source does not say how it is compiled"
    options = shlex.split(found[1])
    subprocess.run(["gcc", "-Wall", "-Wextra", "-Werror", *options, SOURCE, "-o", target], check=True)
    return target


@dataclass
class Server:
    """A running maqet-exec: `port` is connected to it; `line` is a copy of the same socket."""

    process: subprocess.Popen[bytes]
    port: ExecPort
    line: socket.socket

    async def run(
        self, command: str | tuple[str, ...], seconds: float = 60, data: bytes | None = None
    ) -> CommandOutcome:
        return await self.port.run(CommandRequest(command, input=data), Deadline(seconds))


@contextlib.asynccontextmanager
async def serving(program: Path, *, greet: bool = True) -> AsyncIterator[Server]:
    """A server whose host's end is behind a socket file, as QEMU has it."""
    with tempfile.TemporaryDirectory(prefix="exec") as directory, contextlib.ExitStack() as stack:
        path = Path(directory) / "exec"
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(path))
        listening.listen()
        port = ExecPort(path, "web")
        await port.reach()
        guest = stack.enter_context(listening.accept()[0])
        process = subprocess.Popen(
            [program, "--fd", str(guest.fileno())], pass_fds=[guest.fileno()], env=ENVIRONMENT, cwd="/"
        )
        stack.callback(process.wait, 30)
        stack.callback(process.kill)
        guest.close()
        transport = port._connection._transport
        line = stack.enter_context(transport.get_extra_info("socket").dup())
        try:
            if greet:
                await port.connect(Deadline(60))
            yield Server(process, port, line)
        finally:
            await port.close()


def with_server(program: Path, work: Work, *, greet: bool = True) -> None:
    async def run() -> None:
        async with serving(program, greet=greet) as server:
            await work(server)

    asyncio.run(run())
