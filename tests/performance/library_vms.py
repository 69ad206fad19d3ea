"""VMs by the library alone, without pytest."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytest_maqet.config import VmConfig
from pytest_maqet.machine import Host
from pytest_maqet.runs.run_directory import RunDirectory


@contextmanager
def a_run() -> Iterator[Host]:
    """A run of its own; VMs that are still alive at its end are ended."""
    run = RunDirectory.create()
    lease = run.lease("main")
    with tempfile.TemporaryDirectory() as artifacts:
        try:
            yield Host(run=run, lease=lease.path, artifacts=Path(artifacts))
        finally:
            lease.close()
            run.remove()


def a_vm(guest: str, **keys: Any) -> VmConfig:
    """The configuration of a VM with an embedded guest, as the plugin would resolve it."""
    return VmConfig.model_validate({"name": guest, "image": f"builtin:{guest}", **keys})
