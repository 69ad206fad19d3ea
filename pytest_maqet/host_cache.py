"""Where files are kept that outlive a run: embedded guests, downloaded images, answers of QEMU binaries.

One directory for each user of a host: `pytest-maqet` in the user's cache directory, or `MAQET_CACHE_DIR`.
Whatever is in it may be deleted at any time between runs: all of it can be made again.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import platformdirs

from pytest_maqet.errors import StartError

#: The environment variable that names another cache directory.
VARIABLE = "MAQET_CACHE_DIR"


def cache_dir(*parts: str) -> Path:
    """The cache directory, or the folder `parts` below it; made with mode 0700 where it does not exist.

    Raises `StartError` when it cannot be made or written, or belongs to another user.
    """
    base = _base()
    folder = base
    _make(folder, parents=True)
    for part in parts:
        folder = folder / part
        _make(folder, parents=False)
    return folder


def existing_cache() -> Path | None:
    """The cache directory if there is one; raises StartError as `cache_dir`, and makes nothing."""
    base = _base()
    return cache_dir() if os.path.lexists(base) else None


def own_folder(base: Path, name: str) -> Path | None:
    """The folder of that name in the cache directory, if it is a real one of this user; makes nothing."""
    folder = base / name
    try:
        found = folder.lstat()
    except OSError:
        return None
    return folder if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() else None


def _base() -> Path:
    named = os.environ.get(VARIABLE)
    if not named:
        return platformdirs.user_cache_path("pytest-maqet")
    # A relative name would mean another directory in each worker that changes its directory.
    return Path(named).expanduser().absolute()


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
