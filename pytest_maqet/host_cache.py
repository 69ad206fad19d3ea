"""Where files are kept that outlive a run: embedded guests, downloaded images, answers of QEMU binaries.

One directory for each user of a host: `pytest-maqet` in the user's cache directory, or `MAQET_CACHE_DIR`.
Where nothing is named and the user's cannot be used (a read-only home, none at all, that of another user), it
is `/var/tmp/maqet-cache-UID`, or the same in /tmp, which is as private.
Whatever is in it may be deleted at any time between runs: all of it can be made again.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import platformdirs

from pytest_maqet.errors import StartError

#: The environment variable that names another cache directory.
VARIABLE = "MAQET_CACHE_DIR"
#: Where a directory is made for users who have none of their own.
_FALLBACKS = (Path("/var/tmp"), Path("/tmp"))  # noqa: S108 - see `_is_private`


def cache_dir(*parts: str) -> Path:
    """The cache directory, or the folder `parts` below it; made with mode 0700 where it does not exist.

    Raises `StartError` when it cannot be made or written, or belongs to another user.
    """
    folder, _ = _base()
    for part in parts:
        folder = folder / part
        _make(folder, parents=False)
    return folder


def existing_cache() -> Path | None:
    """The cache directory if there is one; raises StartError as `cache_dir`, and makes nothing."""
    named = os.environ.get(VARIABLE)
    usual = Path(named).expanduser().absolute() if named else platformdirs.user_cache_path("pytest-maqet")
    if os.path.lexists(usual):
        return cache_dir()
    others = () if named else _instead()
    return next((other for other in others if os.path.lexists(other) and _is_private(other)), None)


def own_folder(base: Path, name: str) -> Path | None:
    """The folder of that name in the cache directory, if it is a real one of this user; makes nothing."""
    folder = base / name
    try:
        found = folder.lstat()
    except OSError:
        return None
    return folder if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() else None


def instead_of_home() -> str:
    """Which directory is used instead of the user's, and why; "" where the usual or the named one is."""
    try:
        folder, reason = _base()
    except StartError:
        return ""  # whoever needs the cache is going to say so
    return f"{folder} is the cache, since {reason}" if reason else ""


def _base() -> tuple[Path, str]:
    """The directory, made; and why it is not the user's own."""
    if named := os.environ.get(VARIABLE):
        # A relative name would mean another directory in each worker that changes its directory.
        folder = Path(named).expanduser().absolute()
        _make(folder, parents=True)
        return folder, ""
    try:
        folder = platformdirs.user_cache_path("pytest-maqet")
        _refuse_to_make_a_home(folder)
        _make(folder, parents=True)
    except StartError as error:
        for other in _instead():
            if _is_private(other):
                return other, error.message
        raise
    return folder, ""


def _refuse_to_make_a_home(folder: Path) -> None:
    """Users without a home have a name for it all the same (/nonexistent, say), which root could make."""
    home = os.path.expanduser("~")  # noqa: PTH111 - pathlib raises where there is not even a name
    if folder.is_relative_to(home) and not Path(home).exists():
        raise StartError(f"the home directory {home} does not exist", hint=_hint())


def _instead() -> tuple[Path, ...]:
    return tuple(parent / f"maqet-cache-{os.geteuid()}" for parent in _FALLBACKS)


def _is_private(folder: Path) -> bool:
    """Whether it is a directory of ours that nobody else may look into; made where there is nothing.

    Anybody may put things where it lies: a link, or a directory of somebody else, is not taken.
    """
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
    except OSError:
        return False
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return mine and not found.st_mode & 0o077 and os.access(folder, os.W_OK | os.X_OK)


def _make(folder: Path, *, parents: bool) -> None:
    try:
        folder.mkdir(mode=0o700, parents=parents, exist_ok=True)
        found = folder.stat()
    except FileExistsError:
        raise StartError(f"the cache directory {folder} is not a directory", hint=_hint()) from None
    except (OSError, RuntimeError) as error:
        raise StartError(f"the cache directory {folder} cannot be made: {error}", hint=_hint()) from error
    # Images and kernels are booted from here: nobody else may be able to put them there.
    if found.st_uid != os.geteuid():
        raise StartError(
            f"the cache directory {folder} belongs to user id {found.st_uid}, not to {os.geteuid()}",
            hint=_hint(),
        )
    if stat.S_IMODE(found.st_mode) & 0o022:
        raise StartError(
            f"the cache directory {folder} can be written by others (mode {stat.S_IMODE(found.st_mode):04o})",
            hint=f"chmod go-w {folder}, or {_hint()}",
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StartError(f"the cache directory {folder} is not writable", hint=_hint())


def _hint() -> str:
    return f"name a directory of your own in the environment variable {VARIABLE}"
