"""A disk without room for any one of the files of a template: the VM boots, says why, and nothing is left."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from manager_rig import acquired, last_start

from pytest_maqet.management.manager import Manager
from pytest_maqet.templates.store import LOCKS, REFUSED, TemplateStore

#: Two serial ports, and a disk that is written: all kinds of files that a template has.
NANO = {
    "image": "builtin:nano",
    "memory": "16M",
    "serial": ["main", "second"],
    "storage": [{"name": "data", "type": "qcow2", "size": "1M"}],
    "guest": {"connect": ["console"]},
}
#: No temporary file system gives this error here: a directory of it has no blocks that could be used up.
NO_SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
PAGE = os.sysconf("SC_PAGE_SIZE")
NewManager = Callable[..., Manager]
#: Leaves so many bytes or inodes of the disk free; returns what has to go for all to be there again.
Fill = Callable[[Path, int], list[Path]]


@pytest.fixture
def small_disk(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The templates' directory on a file system of its own, which looks roomy: what fails is the writing."""
    folder = own_cache / "templates"
    folder.mkdir(mode=0o700)
    options = "size=8M,nr_inodes=100,mode=0700"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    # The check beforehand would see how little there is; a disk can fill up after it.
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(1 << 40, 0, 1 << 40))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def leave_pages(folder: Path, pages: int) -> list[Path]:
    ballast = folder / "ballast"
    found = os.statvfs(folder)
    with ballast.open("wb") as file:
        file.write(b"x" * (found.f_bavail * found.f_frsize - pages * PAGE))
    return [ballast]


def leave_inodes(folder: Path, inodes: int) -> list[Path]:
    files = [folder / f"ballast{number}" for number in range(os.statvfs(folder).f_favail - inodes)]
    for file in files:
        file.touch()
    return files


def used(folder: Path) -> tuple[int, int]:
    """Pages and inodes that are taken."""
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize // PAGE, found.f_files - found.f_ffree


def left_over(folder: Path) -> list[str]:
    names = {path.name for path in folder.iterdir() if not path.name.startswith("ballast")}
    return sorted(names - {LOCKS, REFUSED})


def needed(new_manager: NewManager, folder: Path) -> tuple[int, int]:
    """How many pages and inodes a template of the VM takes; it is gone when this returns."""
    before = used(folder)
    manager = new_manager({"nano": NANO})
    assert acquired(manager, "nano").started_by == "clone", last_start(manager)
    after = used(folder)
    manager.close()
    for kept in TemplateStore(folder).all():
        assert TemplateStore(folder).discard(kept.path)
    for folder_of_ours in (LOCKS, REFUSED):
        shutil.rmtree(folder / folder_of_ours, ignore_errors=True)
    assert left_over(folder) == []
    return after[0] - before[0], after[1] - before[1]


def check(new_manager: NewManager, folder: Path, fill: Fill, left: int) -> str:
    """How the VM comes up when so much is left; nothing may stay behind, and the next run must be well."""
    ballast = fill(folder, left)
    try:
        manager = new_manager({"nano": NANO})
        vm = acquired(manager, "nano")
        vm.console.send("hello\n")
        vm.wait.console("echo: hello", timeout=5)
        start = last_start(manager)
        manager.close()
        if start["how"] == "boot":
            assert "No space left on device" in start["reason"] or "full" in start["reason"], start
            assert left_over(folder) == [], f"with {left} left, this stays: {left_over(folder)}"
    finally:
        for file in ballast:
            file.unlink()
    following = new_manager({"nano": NANO})
    assert acquired(following, "nano").started_by == "clone", f"after {left}: {last_start(following)}"
    following.close()
    for kept in TemplateStore(folder).all():
        assert TemplateStore(folder).discard(kept.path)
    for folder_of_ours in (LOCKS, REFUSED):
        shutil.rmtree(folder / folder_of_ours, ignore_errors=True)
    return str(start["how"])


def test_no_inode_for_any_one_of_the_files(new_manager, small_disk):
    _pages, inodes = needed(new_manager, small_disk)
    assert inodes > 8, "these are not all files"
    how = {left: check(new_manager, small_disk, leave_inodes, left) for left in range(inodes + 4)}
    assert how[0] == "boot"
    assert how[inodes + 3] == "clone", f"with enough of them it must be a clone: {how}"


def test_no_room_for_any_one_of_the_files(new_manager, small_disk):
    pages, _inodes = needed(new_manager, small_disk)
    # The last files are small, the first one is the memory, of which every page is the same.
    some = [0, 1, 2, 3, pages // 3, pages // 2, *range(max(0, pages - 24), pages + 4, 4), pages + 64]
    how = {left: check(new_manager, small_disk, leave_pages, left) for left in some}
    assert how[0] == "boot"
    assert how[pages + 64] == "clone", f"with enough room it must be a clone: {how}"


def test_no_room_for_the_name_of_the_key(new_manager, store, monkeypatch):
    replace = Path.replace

    def full(path: Path, target: Path) -> Path:
        if path.parent == store.folder:
            raise NO_SPACE
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        manager = new_manager({"nano": NANO})
        assert acquired(manager, "nano").started_by == "boot"
        assert "cannot be finished: No space left on device" in last_start(manager)["reason"]
        manager.close()
    assert left_over(store.folder) == []
    assert acquired(new_manager({"nano": NANO}), "nano").started_by == "clone"
