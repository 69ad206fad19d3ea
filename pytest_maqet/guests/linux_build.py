"""Builds builtin:linux once for each host and keeps it in the host's cache.

A finished guest is a directory named by its contents; `current`, a symbolic link, names the one in use and is
replaced in one step, so that nobody ever sees half a guest. Guests of other versions of our own files lie in
directories of their own (the recipe).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pytest_maqet.errors import LockTimeout, StartError
from pytest_maqet.guests import kernel_image
from pytest_maqet.guests.initramfs import EXEC_HELPER, WAKE_HELPER, write_initramfs
from pytest_maqet.guests.linux_parts import LinuxParts, from_apt
from pytest_maqet.host_cache import cache_dir
from pytest_maqet.runs.locks import held_lock

#: How long to wait for another process that builds the same guest, in seconds.
LOCK_SECONDS = 900

_BUILDING = "building-"
_LOCKED = "the build of builtin:linux"
_KERNEL, _INITRD, _MANIFEST = "kernel", "initrd", "manifest.json"
_CURE = (
    "on Debian or Ubuntu run 'apt-get update' as root and try again; on other hosts name the parts: "
    "'pytest-maqet guest build --kernel FILE --initrd FILE' (of a guest built elsewhere), or "
    "'--kernel FILE --busybox FILE --modules DIRECTORY'"
)

MakeParts = Callable[[Path, Callable[[str], None]], LinuxParts]


@dataclass(frozen=True)
class LinuxGuest:
    """A finished guest in the cache: its files, and the digest of all that is in them."""

    kernel: Path
    initrd: Path
    identity: str


def linux_guest(
    *,
    report: Callable[[str], None],
    parts: MakeParts = from_apt,
    initrd: Path | None = None,
    force: bool = False,
) -> LinuxGuest:
    """The guest of this host; built when there is none, or anew when `force` is set.

    `parts` fetches what it is made of into the directory that it is given. `initrd`, if named, is taken as it
    is instead of making one. `report` gets a line for each step that may take time.
    Raises `StartError` when it cannot be built, `LockTimeout` when another process does not end building it.
    """
    home = cache_dir("guests", f"linux-x86_64-{recipe()}")
    if not force and (guest := _current(home)) is not None:
        return guest
    lock = home / "build.lock"
    owner = "a build of builtin:linux"
    try:
        with held_lock(lock, timeout=0, what=_LOCKED, owner=owner):
            return _build_locked(home, report, parts, initrd, force=force)
    except LockTimeout as busy:
        report(f"builtin:linux is being built by {busy.holder or 'another process'}; waiting for it")
    with held_lock(lock, timeout=LOCK_SECONDS, what=_LOCKED, owner=owner):
        # Without `force`, what the other has just built will do.
        return _build_locked(home, report, parts, initrd, force=force)


@cache
def recipe() -> str:
    """A short digest of the guest's own files and of the code that puts it together.

    Once for each process: it is asked for at every start of a VM.
    """
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    code = (path for path in folder.glob("*.py") if path.name not in {"__init__.py", "builtin.py"})
    for path in sorted((*code, WAKE_HELPER, EXEC_HELPER, *(folder / "linux").rglob("*"))):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _current(home: Path) -> LinuxGuest | None:
    directory = (home / "current").resolve()
    if not _whole(directory):
        return None
    return LinuxGuest(directory / _KERNEL, directory / _INITRD, directory.name)


def _whole(directory: Path) -> bool:
    """Whether all files are there, as long as the manifest says: a crash of the host may have cut them."""
    try:
        files = json.loads((directory / _MANIFEST).read_text())["files"]
        return all((directory / name).stat().st_size == file["size"] for name, file in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _build_locked(
    home: Path,
    report: Callable[[str], None],
    parts: MakeParts,
    initrd: Path | None,
    *,
    force: bool,
) -> LinuxGuest:
    if not force and (guest := _current(home)) is not None:
        return guest
    for leftover in home.glob(f"{_BUILDING}*"):
        # Of a builder that was killed: the lock is ours, so nobody is at work in it.
        shutil.rmtree(leftover, ignore_errors=True)
    report("building builtin:linux (once on this host; about half a minute)")
    work = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=home))
    try:
        return _build(home, work, report, parts, initrd)
    except StartError as error:
        raise StartError(
            f"builtin:linux cannot be built: {error.message}", hint=error.hint or _CURE
        ) from error
    except OSError as error:
        raise StartError(f"builtin:linux cannot be built in {home}: {error}", hint=_CURE) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _build(
    home: Path, work: Path, report: Callable[[str], None], parts: MakeParts, initrd: Path | None
) -> LinuxGuest:
    made = work / "made"
    made.mkdir()
    (work / "parts").mkdir()
    fetched = parts(work / "parts", report)
    report("writing the kernel and the initramfs")
    image = fetched.kernel.read_bytes()
    (made / _KERNEL).write_bytes(kernel_image.unpacked(image) or image)
    if initrd is not None:
        shutil.copyfile(initrd, made / _INITRD)
    else:
        with (made / _INITRD).open("wb") as output:
            write_initramfs(fetched, output)
    manifest = {
        "guest": "builtin:linux",
        "origin": fetched.origin,
        "files": {name: _described(made / name) for name in (_KERNEL, _INITRD)},
    }
    text = json.dumps(manifest, indent=2) + "\n"
    (made / _MANIFEST).write_text(text)
    identity = hashlib.sha256(text.encode()).hexdigest()[:16]
    target = home / identity
    if not _whole(target):
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
    link = work / "link"
    link.symlink_to(identity)
    link.replace(home / "current")
    report(f"built builtin:linux: {target}")
    return LinuxGuest(target / _KERNEL, target / _INITRD, identity)


def _described(path: Path) -> dict[str, str | int]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
