"""Configuration files: found, opened and read, with one clear error for everything that can be wrong.

Size and kind are asked of the open file, not of its name, so that nothing can be swapped in between.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from pytest_maqet.config.limits import DEFAULT_LIMITS, Limits, Tally
from pytest_maqet.config.problems import config_error
from pytest_maqet.errors import ConfigError

#: The names that are looked for where no file was named, in this order.
DISCOVERED = ("maqet.yaml", "maqet.yml")


def discover(rootdir: Path) -> list[Path]:
    """The configuration file of a directory: a list with `maqet.yaml` or `maqet.yml`, or an empty one.

    Raises ConfigError when both are there: which one is meant cannot be known.
    """
    found = [path for path in (rootdir / name for name in DISCOVERED) if os.path.lexists(path)]
    if len(found) > 1:
        raise ConfigError(
            f"there are both {found[0]} and {found[1]}, and only one can be meant",
            hint="remove one, or name the files with --maqet-config in the order they are to be merged",
        )
    return found


def read_text(path: Path, limits: Limits = DEFAULT_LIMITS, tally: Tally | None = None) -> str:
    """The text of a configuration file; `tally` has what other files took already.

    Raises ConfigError when it is missing, a directory, a dangling or circular link, unreadable, too big (not
    a byte is read then), empty, or not UTF-8.
    """
    try:
        # O_NONBLOCK: opening a FIFO that nobody writes to must not hang.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise _cannot_open(path, error) from None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise _wrong(path, f"is {_kind(status.st_mode)}, not a file")
    tally = tally or Tally()
    left = limits.file_bytes - tally.bytes
    with os.fdopen(fd, "rb") as file:
        if status.st_size > left:
            raise _too_big(path, status.st_size, limits, tally)
        try:
            data = file.read(left + 1)
        except OSError as error:
            raise _wrong(path, f"cannot be read: {error.strerror}") from None
    if len(data) > left:  # it grew, or lies about its size as files in /proc do
        raise _too_big(path, len(data), limits, tally)
    tally.bytes += len(data)
    return _decoded(path, data)


def _decoded(path: Path, data: bytes) -> str:
    if not data.strip():
        raise _wrong(path, "is empty", "describe a VM in it: `vms: {web: {image: builtin:linux}}`")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        found = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise config_error([f"{path}:{line}:{column}: {found}; a configuration is text in UTF-8"]) from None


def _cannot_open(path: Path, error: OSError | ValueError) -> ConfigError:
    if not isinstance(error, OSError):
        return _wrong(path, f"is no file name: {error}")
    if error.errno == errno.ENOENT:
        if path.is_symlink():
            return _wrong(path, f"is a dangling link: {path.readlink()} does not exist")
        return _wrong(path, "does not exist")
    if error.errno == errno.ELOOP:
        return _wrong(path, "is a link that leads back to itself (a circle of symbolic links)")
    if error.errno == errno.EACCES:
        return _wrong(path, "cannot be read: permission denied")
    if error.errno == errno.ENOTDIR:
        return _wrong(path, "does not exist: a part of its path is a file, not a directory")
    return _wrong(path, f"cannot be opened: {error.strerror}")


def _too_big(path: Path, size: int, limits: Limits, tally: Tally) -> ConfigError:
    others = f" of all files together, and those before it have {tally.bytes:,}" if tally.bytes else ""
    return _wrong(path, f"is too big: {size:,} bytes; at most {limits.file_bytes:,} bytes are read{others}")


def _wrong(path: Path, what: str, hint: str | None = None) -> ConfigError:
    return config_error([f"configuration file {path} {what}"], hint)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")
