"""Fixtures of the storage tests: real images, a real HTTP server, a file system that is full."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from file_server import FileServer
from image_files import QemuIo, make_image

#: The user that has nothing, in every Linux distribution.
NOBODY = 65534


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache directory of this test; where images go is below it."""
    monkeypatch.setenv("MAQET_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A file server; a proxy of this host is left out."""
    monkeypatch.setenv("no_proxy", "*")
    served = FileServer(content=os.urandom(1 << 20))
    running = served.start()
    yield served
    running.shutdown()
    running.server_close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system of its own, of 256 KB."""
    path = tmp_path / "small"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def as_nobody() -> Callable[[], AbstractContextManager[Path]]:
    """`with as_nobody() as folder:` runs the body as a user who is not root, with a folder that is root's."""
    if os.geteuid():
        pytest.skip("becoming another user needs root")

    @contextmanager
    def became() -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(prefix="mq-"))
        folder.chmod(0o755)
        os.setresuid(NOBODY, NOBODY, 0)
        try:
            yield folder
        finally:
            os.setresuid(0, 0, 0)
            shutil.rmtree(folder)

    return became


@pytest.fixture
def qcow2(tmp_path: Path) -> Path:
    """A qcow2 image of 1 MiB."""
    return make_image(tmp_path / "base.qcow2")


@pytest.fixture
def qemu_io() -> QemuIo:
    """Another process that has an image open, for writing unless it is told `-r`."""

    @contextmanager
    def opened(path: Path, *options: str) -> Iterator[None]:
        process = subprocess.Popen(
            ["qemu-io", *options, f"file:{path}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.read(9) == b"qemu-io> ", "qemu-io could not open the image"
            yield
            process.communicate(b"quit\n", timeout=30)

    return opened
