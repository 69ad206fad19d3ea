"""Where runs live: one private directory for each user of a host, with a path short enough for sockets."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from pytest_maqet.errors import StartError

#: The environment variable that names another base directory.
VARIABLE = "MAQET_RUN_BASE"
#: The longest path of a unix socket, in bytes (unix(7): 108 with the closing NUL).
LONGEST_SOCKET_PATH = 107
#: What comes below the base at most: /<run id 12>/<VM 16>-<number 5>/serial-<name 16>.sock
LONGEST_BELOW = 1 + 12 + 1 + 22 + 1 + 28
#: The longest path of a base directory, in bytes.
LONGEST_BASE = LONGEST_SOCKET_PATH - LONGEST_BELOW
#: "Nobody", the owner that a user namespace shows for everybody outside it (user_namespaces(7)).
_OVERFLOW_UID = 65534


def base_directory() -> Path:
    """The base directory of runs, made with mode 0700 where it does not exist.

    `MAQET_RUN_BASE` where it is set; else the first usable of `$TMPDIR/maqet-UID`, `/var/tmp/maqet-UID` and
    `/tmp/maqet-UID` (disks live there too, so a small tmpfs is a bad home). Usable: its path is short enough
    for the sockets below it, it is a real directory of our own, and nobody else may even look into it.

    Raises `StartError` that says for each candidate what is wrong with it.
    """
    if named := os.environ.get(VARIABLE):
        base = Path(named).expanduser().absolute()
        if fault := _fault(base):
            raise StartError(
                f"{VARIABLE} names {base}, which cannot hold runs: {fault}",
                hint="name a short path: a directory of your own with mode 0700, or a new one",
            )
        return base
    faults = []
    for base in _candidates():
        fault = _fault(base)
        if fault is None:
            return base
        faults.append(f"  {base}: {fault}")
    raise StartError(
        "there is no safe place for the files of a run:\n" + "\n".join(faults),
        hint=f"name a short directory of your own in the environment variable {VARIABLE}",
    )


def existing_bases() -> tuple[list[Path], list[str]]:
    """Every base directory of this user that is there, and why others of that name are left alone.

    Runs lie in more than one where `TMPDIR` was another for some. Makes nothing, raises nothing.
    """
    named = os.environ.get(VARIABLE)
    wanted = [Path(named).expanduser().absolute()] if named else _candidates()
    found, alone = [], []
    for base in dict.fromkeys(wanted):
        if not os.path.lexists(base):
            continue
        if fault := _fault(base):
            alone.append(f"{base}: {fault}")
        else:
            found.append(base)
    return found, alone


def _candidates() -> list[Path]:
    parents = [Path("/var/tmp"), Path("/tmp")]  # noqa: S108 - checked below, that is what this module is for
    if (named := os.environ.get("TMPDIR")) and Path(named).is_absolute():
        parents.insert(0, Path(named))
    return [parent / f"maqet-{os.geteuid()}" for parent in parents]


def _fault(base: Path) -> str | None:
    """Why runs cannot live in `base`, or None; makes it where it does not exist."""
    size = len(os.fsencode(base))
    if size > LONGEST_BASE:
        return f"its path has {size} bytes, and sockets below it allow {LONGEST_BASE}"
    try:
        if fault := _parent_fault(base.parent):
            return fault
        # Whatever is there already, even a link that leads nowhere, is judged below.
        with contextlib.suppress(FileExistsError):
            base.mkdir(mode=0o700)
        # lstat: a symlink that someone else laid here would lead our files to where they want them.
        found = base.lstat()
    except OSError as error:
        return f"it cannot be made: {error.strerror}"
    return _directory_fault(base, found)


def _parent_fault(parent: Path) -> str | None:
    found = parent.stat()
    if found.st_uid not in {0, os.geteuid(), _OVERFLOW_UID}:
        return f"{parent} belongs to user id {found.st_uid}, who could replace what is in it"
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        return f"everybody may rename and remove what is in {parent} (mode {stat.S_IMODE(found.st_mode):04o})"
    return None


def _directory_fault(base: Path, found: os.stat_result) -> str | None:
    if stat.S_ISLNK(found.st_mode):
        return "it is a symbolic link"
    if not stat.S_ISDIR(found.st_mode):
        return "it is not a directory"
    if found.st_uid != os.geteuid():
        return f"it belongs to user id {found.st_uid}, not to {os.geteuid()}"
    if found.st_mode & 0o077:
        return f"others may get into it (mode {stat.S_IMODE(found.st_mode):04o} instead of 0700)"
    if not os.access(base, os.R_OK | os.W_OK | os.X_OK):
        return "it is not writable"
    return None
