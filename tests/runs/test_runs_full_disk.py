"""A full disk hides neither why QEMU died nor why the next one does not start."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_processes import eventually

from pytest_maqet.errors import StartError
from pytest_maqet.runs.process import QemuProcess
from pytest_maqet.runs.run_directory import RunDirectory


@pytest.fixture
def small_disk(base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A base directory on a file system of 200 KB."""
    path = base / "small"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k,mode=0700", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    monkeypatch.setenv("MAQET_RUN_BASE", str(path))
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_full_disk(small_disk: Path) -> None:
    run = RunDirectory.create()
    lease = run.lease("main")
    fill = "sleep 0.3; dd if=/dev/zero of=disk.qcow2 bs=1k 2>&-; exit 5"
    process = QemuProcess.launch(["/bin/sh", "-c", fill], run.new_vm_directory("vm"), lease.path)
    assert eventually(lambda: process.exit() is not None)
    found = process.exit()
    assert found is not None
    assert found.reason == "exited with status 5", "the full disk swallowed the exit status"
    with pytest.raises(StartError, match="No space left on device"):
        QemuProcess.launch(["/bin/sleep", "60"], run.new_vm_directory("vm"), lease.path)
    process.dismiss(5)
    process.close()
    assert run.remove()
    assert list(small_disk.iterdir()) == []
