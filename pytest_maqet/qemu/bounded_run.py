"""Running a program to its end, or ending it and all it started when it takes too long."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence

from pytest_maqet.runs.child_environment import child_environment


def run_bounded(argv: Sequence[str], seconds: float, stdin: int) -> subprocess.CompletedProcess[bytes]:
    """Run `argv` with its output captured.

    A program may be a script around QEMU, and killing that alone would leave the QEMU behind, holding our
    pipe open for ever: so the program gets a process group of its own, which is killed as a whole.
    Raises `subprocess.TimeoutExpired` after `seconds`, and OSError when `argv` can't be executed.
    """
    with subprocess.Popen(
        argv,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=child_environment(),
        process_group=0,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=seconds)
        finally:
            # Also after Ctrl-C, which the terminal sends to our own process group only.
            kill_group(process)
        return subprocess.CompletedProcess(list(argv), process.returncode, stdout, stderr)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that was started with `process_group=0`, and its children; nothing if it was reaped."""
    # Until it is reaped, nobody else can get its number.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
