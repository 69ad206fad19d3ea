"""What a path in the configuration means: one policy for all of them.

`~` expands; a relative path is relative to the directory of the file that wrote it; `..` goes up from where
the directory really is, links followed, as the kernel does. Where a root is set, no path may lead out of it,
links followed. Whether a file is there is asked by `missing_file`, when it is about to be used.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from pytest_maqet.config.places import Source
from pytest_maqet.config.problems import shown

#: The longest path that Linux takes, in bytes (limits.h, PATH_MAX, with the closing NUL).
LONGEST_PATH = 4095


class PathError(ValueError):
    """A path that cannot be meant; the message says what was found and what is allowed."""


class PathResolver:
    """Makes paths absolute; `root` None lets them lead anywhere."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = os.path.realpath(root) if root is not None else None
        self._real_directories: dict[str, str] = {}

    def resolve(self, text: str, source: Source) -> str:
        """The absolute path that `text`, written in `source`, means.

        Raises PathError when it leads out of the root, through a circle of links, or to an unknown home.
        """
        _check_text(text)
        path = _normal(os.path.join(source.directory, _expanded(text)))  # noqa: PTH118 - keeps `..` as it is
        if self._root is not None:
            self._check_root(text, path)
        return path

    def if_there(self, text: str, source: Source) -> str:
        """For raw arguments: `text` resolved if it begins with `./`, `../` or `~/`, or if such a file exists.

        QEMU looks for some relative names in its own directories, and other values are no paths at all.
        """
        if text.startswith(("./", "../", "~/", "/")):
            return self.resolve(text, source)
        there = 0 < len(text) <= LONGEST_PATH and os.path.exists(os.path.join(source.directory, text))  # noqa: PTH110, PTH118 - never raises
        return self.resolve(text, source) if there else text

    def _check_root(self, text: str, path: str) -> None:
        try:
            real = self._real(path)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise PathError(f"{text!r} leads through a circle of symbolic links") from None
            real = os.path.realpath(path)
        if real != self._root and not real.startswith(f"{self._root}{os.sep}".replace("//", "/")):
            raise PathError(
                f"{text!r} leads to {real}, out of the root {self._root}; paths have to stay under it"
            )

    def _real(self, path: str) -> str:
        """The path with its links followed; many files lie in few directories, so those are remembered."""
        directory, name = os.path.split(path)
        if directory not in self._real_directories:
            self._real_directories[directory] = _real(directory)
        real = f"{self._real_directories[directory].rstrip('/')}/{name}"
        return _real(real) if os.path.islink(real) else real  # noqa: PTH114 - a Path costs more than the question


def _check_text(text: str) -> None:
    if "\0" in text:
        raise PathError(f"found {shown(text)}; a path has no NUL character")
    try:
        size = len(os.fsencode(text))
    except UnicodeEncodeError:
        raise PathError(f"found {shown(text)}, which cannot be the name of a file") from None
    if size > LONGEST_PATH:
        raise PathError(f"found {shown(text)}, a path of {size:,} bytes; Linux takes up to {LONGEST_PATH:,}")


def _real(path: str) -> str:
    try:
        return os.path.realpath(path, strict=True)
    except FileNotFoundError:
        return os.path.realpath(path)


def _expanded(text: str) -> str:
    if not text.startswith("~"):
        return text
    expanded = os.path.expanduser(text)  # noqa: PTH111 - a Path would lose `./` and fail differently
    if expanded == text:
        raise PathError(
            f"found {text!r}, but there is no such user or home; write './{text}' for a file of that name"
        )
    return expanded


def _normal(path: str) -> str:
    """The path without `.` and doubled slashes; as far as the last `..` its links are followed first."""
    if "/.." not in path:
        return os.path.normpath(path)
    parts = path.split("/")
    if ".." not in parts:
        return os.path.normpath(path)
    last = len(parts) - parts[::-1].index("..")
    return os.path.normpath(os.path.join(os.path.realpath("/".join(parts[:last])), *parts[last:]))  # noqa: PTH118


def missing_file(path: Path) -> str | None:
    """Why a path is no file that can be read, in words for an error; None when it is one."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - the error is what is wanted
    except OSError as error:
        return _why(path, error)
    if stat.S_ISDIR(mode):
        return f"{path} is a directory, not a file"
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        return f"{path} is neither a file nor a block device"
    if not os.access(path, os.R_OK):
        return f"{path} cannot be read: permission denied"
    return None


def _why(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOENT and path.is_symlink():
        return f"{path} is a dangling link to {path.readlink()}"
    reasons = {
        errno.ENOENT: "does not exist",
        errno.ELOOP: "is a circle of symbolic links",
        errno.EACCES: "cannot be reached: permission denied",
        errno.ENOTDIR: "does not exist: a part of its path is a file",
    }
    return f"{path} {reasons.get(error.errno or 0, error.strerror or 'cannot be used')}"
