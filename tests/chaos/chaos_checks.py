"""What must hold when a run is over, whatever hit it. Each check returns complaints, in words."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from chaos_home import Home
from chaos_processes import marked

from pytest_maqet.runs.keeper import VOLATILE

#: struct flock of 64-bit Linux, as in fcntl(2).
_FLOCK = struct.Struct("hhxxxxqqixxxx")
_TEMPLATE_FILES = ("manifest.json", "use")


def left_processes(mark: str, patience: float) -> tuple[float, list[str]]:
    """Wait until no process of the run is left; the seconds that took, and complaints about the others."""
    began = time.monotonic()
    while left := marked(mark):
        if time.monotonic() - began > patience:
            return patience, [f"process left after {patience:g} s: {process}" for process in left]
        time.sleep(0.01)
    return time.monotonic() - began, []


def held_locks(*roots: Path, patience: float) -> list[str]:
    """Complaints about every file below the roots that anybody has locked, in either way.

    A process that ends gives up its memory, its environment with that, before its locks: they are looked at
    again until `patience` is over.
    """
    began = time.monotonic()
    while held := _held(roots):
        if time.monotonic() - began > patience:
            break
        time.sleep(0.02)
    return held


def _held(roots: Sequence[Path]) -> list[str]:
    return [f"{kind} lock held: {path}" for root in roots for path in _files(root) for kind in _locks(path)]


def _locks(path: Path) -> list[str]:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return []
    found = []
    try:
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        if _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, question))[0] != fcntl.F_UNLCK:
            found.append("fcntl")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found.append("flock")
    finally:
        os.close(fd)
    return found


def _files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]


def volatile_files(home: Home, keepers_killed: set[str]) -> list[str]:
    """Complaints about sockets, disks and memory that a keeper should have removed when its owner was gone.

    `keepers_killed` are the directories of VMs whose keeper was hit itself. Not its job: a VM that its owner
    was already done with, and one whose keeper had not started.
    """
    found = []
    for lock in home.runs.glob("*/*/keeper.lock"):
        vm = lock.parent
        if str(vm) not in keepers_killed and not _was_done_with(vm):
            found += [f"left by its keeper: {path}" for path in vm.iterdir() if _is_volatile(path)]
    return found


def _was_done_with(vm: Path) -> bool:
    try:
        ended = json.loads((vm / "exit").read_text())
    except (OSError, ValueError):
        return False
    return ended.get("cause") == "its owner was done with it" or ended.get("code") == 0


def _is_volatile(path: Path) -> bool:
    return path.name.endswith(VOLATILE) or stat.S_ISSOCK(path.lstat().st_mode)


def left_files(home: Home) -> list[str]:
    """Complaints about every file that is there after a run that ended in peace, but for whole templates."""
    loose = [path for name in ("runs", "xdg", "home") for path in (home.path / name).iterdir()]
    loose += [
        path for path in (home.path / "tmp").iterdir() if not path.name.startswith("pytest-of-")
    ]  # pytest's own
    loose += _loose_in_store(home.templates)
    return [f"file left: {path}" for path in loose]


def _loose_in_store(store: Path) -> list[Path]:
    if not store.is_dir():
        return []
    links = [path for path in store.iterdir() if path.is_symlink()]
    whole = {
        path.readlink().name
        for path in links
        if not path.name.startswith(".") and all((path / name).is_file() for name in _TEMPLATE_FILES)
    }
    # One with a dot is a link that is just being made.
    loose = [path for path in links if path.name.startswith(".") or path.readlink().name not in whole]
    loose += [path for path in store.iterdir() if _is_unlinked(path, whole)]
    # The files of locks stay, who holds them is written beside them only as long as that.
    return loose + [path for path in (store / "locks").glob("*") if path.suffix != ".lock"]


def _is_unlinked(path: Path, whole: set[str]) -> bool:
    return not path.is_symlink() and path.name not in {"locks", "refused"} and path.name not in whole
