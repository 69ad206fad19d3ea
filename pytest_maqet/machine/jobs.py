"""QEMU's background jobs: started, awaited by their events, their errors told, and dismissed.

qapi/job.json of QEMU: a job's end is told by the event JOB_STATUS_CHANGE, by way of `aborting` when it
failed; it stays `concluded`, with its error, until job-dismiss.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import DiskError, GuestPanic, MaqetError, QMPCommandError, WaitTimeout
from pytest_maqet.machine.life import Life
from pytest_maqet.waiting.engine import race


class _Progress:
    """What the events have told of one job."""

    def __init__(self, job: str) -> None:
        self.failed = False
        self.concluded = asyncio.Event()
        self._job = job

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take in an event, whatever it is about."""
        data = message.get("data", {})
        if message["event"] != "JOB_STATUS_CHANGE" or data["id"] != self._job:
            return
        if data["status"] == "aborting":
            self.failed = True
        elif data["status"] == "concluded":
            self.concluded.set()


async def run_job(
    life: Life, command: str, arguments: Mapping[str, Any], deadline: Deadline, *, prefix: str = "maqet-"
) -> None:
    """Execute a QMP command that starts a job, and return at the job's end; its id begins with `prefix`.

    Raises QMPCommandError when QEMU refuses the command or the job fails, QemuDied, WaitTimeout (the job may
    still go on then). A guest's panic does not end it.
    """
    job = f"{prefix}{secrets.token_hex(4)}"
    progress = _Progress(job)
    stop_listening = life.vitals.mailbox.listen(progress.hear)
    try:
        await life.execute(command, {"job-id": job, **arguments}, deadline)
        await race(life.vitals, progress.concluded.wait(), deadline, (GuestPanic, DiskError))
    except TimeoutError:
        raise WaitTimeout(
            f"{life.config.name}: QEMU's job {command!r} did not end within {deadline}"
        ) from None
    finally:
        stop_listening()
    said = await _error_of(life, job, deadline) if progress.failed else ""
    with suppress(MaqetError):  # its end is known; what is left of it is a line in query-jobs
        await life.execute("job-dismiss", {"id": job}, deadline)
    if progress.failed:
        raise QMPCommandError(
            f"{life.config.name}: QEMU's job {command!r} failed: {said}",
            error_class="GenericError",
            description=said,
            command=command,
            arguments=arguments,
        )


async def _error_of(life: Life, job: str, deadline: Deadline) -> str:
    jobs: Any = await life.execute("query-jobs", None, deadline)
    return next((str(one.get("error", "")) for one in jobs if one["id"] == job), "")
