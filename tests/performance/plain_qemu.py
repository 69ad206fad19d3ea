"""QEMU as one would start it without us: a `subprocess.Popen`, and the console's log read to its banner."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from inotify_simple import INotify, flags

#: How long a boot may take, in seconds, before the benchmark gives up.
PATIENCE = 120.0


def boot(command_line: str, workdir: Path, banner: bytes) -> float:
    """Boot with the arguments of one of our VMs; seconds from the first step to `banner` on the console.

    `command_line` and `workdir` are the VM's. Files in its directory become files in another one, listening
    sockets it inherits become others of the same kind; only `-S` is left out, since nobody would say `cont`.
    """
    with (
        tempfile.TemporaryDirectory(prefix="plain-", dir=workdir.parent.parent) as scratch,
        ExitStack() as stack,
    ):
        started = time.perf_counter()
        text, fds = _own_sockets(command_line.replace(str(workdir), scratch), Path(scratch), stack)
        argv = [argument for argument in shlex.split(text) if argument != "-S"]
        log = _log_of(argv)
        log.touch()
        watch = stack.enter_context(INotify())
        watch.add_watch(log, flags.MODIFY)
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=fds,
        )
        try:
            _await(banner, log, watch, started)
            return time.perf_counter() - started
        finally:
            process.kill()
            process.wait()


def _own_sockets(text: str, scratch: Path, stack: ExitStack) -> tuple[str, list[int]]:
    """The command line with a new listening socket for each `fd=N`, and their descriptors."""
    fds: list[int] = []

    def replaced(_match: re.Match[str]) -> str:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listening.bind(str(scratch / f"{len(fds)}.sock"))
        listening.listen()
        fds.append(listening.fileno())
        return f"fd={listening.fileno()}"

    return re.sub(r"\bfd=\d+", replaced, text), fds


def _log_of(argv: list[str]) -> Path:
    """The log file of the first serial port."""
    return next(
        Path(part.removeprefix("logfile="))
        for argument in argv
        for part in argument.split(",")
        if part.startswith("logfile=")
    )


def _await(banner: bytes, log: Path, watch: INotify, started: float) -> None:
    with log.open("rb") as console:
        seen = b""
        while banner not in seen:
            if time.perf_counter() - started > PATIENCE:
                raise TimeoutError(f"no {banner!r} on the console within {PATIENCE:g} s: {seen[-500:]!r}")
            if not (grown := console.read()):
                watch.read(timeout=1000)
            seen += grown
