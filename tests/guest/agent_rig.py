"""The real guest agent on this host, and sockets that behave like a bad one."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from pytest_maqet.guest.agent import AgentChannel

AGENT = shutil.which("qemu-ga") or shutil.which("qemu-ga", path="/usr/sbin:/usr/bin")
needs_agent = pytest.mark.skipif(AGENT is None, reason="qemu-ga is not installed (qemu-guest-agent)")


@contextlib.contextmanager
def running_agent(directory: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    socket = directory / "agent"
    assert AGENT is not None
    argv = [AGENT, "-m", "unix-listen", "-p", str(socket), "-t", str(directory), "-f", str(directory / "pid")]
    with subprocess.Popen([*argv, *options], stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(200):
                if socket.exists():
                    break
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


@contextlib.asynccontextmanager
async def agent_channel(*options: str, shared: bool = False) -> AsyncIterator[AgentChannel]:
    with tempfile.TemporaryDirectory(prefix="agent") as directory, running_agent(Path(directory), *options):
        channel = AgentChannel(Path(directory) / "agent", "web", shared=shared)
        try:
            yield channel
        finally:
            await channel.close()


@contextlib.asynccontextmanager
async def pretended_agent(
    behave: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[AgentChannel]:
    """A channel to a socket where `behave` talks instead of an agent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await behave(reader, writer)
        writer.close()

    with tempfile.TemporaryDirectory(prefix="agent") as directory:
        path = Path(directory) / "agent"
        server = await asyncio.start_unix_server(serve, path)
        channel = AgentChannel(path, "web")
        try:
            yield channel
        finally:
            await channel.close()
            server.close()
