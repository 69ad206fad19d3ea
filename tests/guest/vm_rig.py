"""A real machine with the embedded Linux guest, started by hand: only what channels need."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from serial_rig import Access

from pytest_maqet.file_watch import lease_watch, release_watch
from pytest_maqet.guest.agent import AgentChannel
from pytest_maqet.guest.console_log import ConsoleLog
from pytest_maqet.guest.serial_shell import SerialShell
from pytest_maqet.guest.serial_writer import SerialWriter
from pytest_maqet.guests.builtin import builtin_guest
from pytest_maqet.loop import Pulse

QEMU = shutil.which("qemu-system-x86_64")
needs_qemu = pytest.mark.skipif(QEMU is None, reason="qemu-system-x86_64 is not installed")


@dataclass(frozen=True)
class Machine:
    log: ConsoleLog
    changed: Pulse
    line: SerialWriter
    shell: SerialShell
    agent: AgentChannel

    async def ready(self, times: int = 1) -> None:
        async with asyncio.timeout(120):
            while self.log.text().count("guest ready") < times:
                await self.changed.wait()


def _argv(directory: Path) -> list[str]:
    guest = builtin_guest("linux")
    assert QEMU is not None
    argv = [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35", "-accel", "tcg"]
    argv += ["-cpu", "max", "-m", "256M", "-kernel", str(guest.kernel), "-initrd", str(guest.initrd)]
    argv += ["-append", guest.append, "-serial", "chardev:serial", "-device", "virtio-serial"]
    serial = (
        f"socket,id=serial,server=on,wait=off,path={directory}/line,logfile={directory}/line.log,logappend=on"
    )
    agent = f"socket,id=agent,server=on,wait=off,path={directory}/agent"
    argv += ["-chardev", serial, "-chardev", agent]
    return [*argv, "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]


@contextlib.asynccontextmanager
async def machine() -> AsyncIterator[Machine]:
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory(prefix="vm") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        path = directory / "line.log"
        path.touch()
        process = subprocess.Popen(_argv(directory))
        stack.callback(process.wait)
        stack.callback(process.kill)
        changed = Pulse()
        log = ConsoleLog(path, changed.beat)
        stack.callback(log.close)
        watch = lease_watch(loop)
        stack.callback(release_watch, loop)
        stack.callback(watch.remove, watch.add(path, log.read))
        line = SerialWriter(directory / "line")
        shell = SerialShell(log, line, changed, Access(), "web")
        agent = AgentChannel(directory / "agent", "web")
        try:
            yield Machine(log, changed, line, shell, agent)
        finally:
            await shell.close()
            await agent.close()
