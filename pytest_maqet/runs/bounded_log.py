"""A log that QEMU appends to without end, kept to a bounded size: its beginning and its end.

QEMU cannot rotate a log. What lies between beginning and end is given back to the file system as a hole
(fallocate(2), FALLOC_FL_PUNCH_HOLE), so that the file keeps its length and every position in it its meaning;
QEMU, which appends, notices nothing. ext4, xfs, btrfs and tmpfs can do that; where it cannot be done the log
grows, and `give_back` says why.

Positions in the cut part read as NULs, also while they are being cut: a reader asks `begins_again` for the
size *after* it has read.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from pytest_maqet.runs.private_files import open_private

#: Of each log this much of the beginning is kept, in bytes: a boot, even a talkative one.
HEAD = 4 * 1024 * 1024
#: And this much of the end at least.
TAIL = 28 * 1024 * 1024
#: The middle is cut in steps of this many bytes, a multiple of every usual block size.
STEP = 4 * 1024 * 1024

_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02  # linux/falloc.h
_PIECE = 256 * 1024


def begins_again(size: int) -> int:
    """Where the kept end of a log of `size` bytes begins; `HEAD` where nothing is cut."""
    return max(HEAD, (size - TAIL) // STEP * STEP)


def next_kept(position: int, size: int) -> int:
    """`position`, or where the log goes on behind the cut when it lies in that."""
    return position if position < HEAD else max(position, begins_again(size))


def cut_note(count: int) -> str:
    """What stands in the place of `count` cut bytes."""
    return f"\n[… {count} bytes cut …]\n"


def give_back(path: Path, start: int) -> tuple[int, str]:
    """Cut what lies between `start` (an earlier call's end, or 0) and the kept end of the log.

    Returns where the cut ends now, and why it could not be made, if so.
    """
    try:
        size = path.stat().st_size
        begin, end = max(start, HEAD), begins_again(size)
        if end <= begin:
            return start, ""
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            _punch(fd, begin, end - begin)
        finally:
            os.close(fd)
    except OSError as error:
        return start, f"{path} cannot be kept short: {error.strerror}"
    return end, ""


def read_piece(fd: int, position: int) -> tuple[int, bytes]:
    """The next bytes at or after `position` that are kept, and where they begin; empty at the end."""
    while True:
        room = HEAD - position if position < HEAD else _PIECE
        data = os.pread(fd, min(room, _PIECE), position)
        later = next_kept(position, os.fstat(fd).st_size)
        if later == position:
            return position, data
        position = later


def pieces(path: Path) -> Iterator[bytes]:
    """The log with a note in place of what was cut; also of one that could not be. Raises OSError."""
    with path.open("rb") as log:
        end = os.fstat(log.fileno()).st_size
        position = 0
        while position < end:
            begin, data = read_piece(log.fileno(), position)
            if begin > position:
                yield cut_note(begin - position).encode()
            yield data
            position = begin + len(data)
            if not data:
                return


def copy_log(source: Path, target: Path) -> Path:
    """Copy a log without filling its cut part with NULs; returns `target`. Raises OSError."""
    with open_private(target) as copy:
        for piece in pieces(source):
            copy.write(piece)
    return target


def last_bytes(path: Path, count: int) -> bytes:
    """The end of a log, at most `count` bytes. Raises OSError."""
    with path.open("rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - count))
        return log.read(count)


def _punch(fd: int, offset: int, length: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    call = getattr(libc, "fallocate64", None) or libc.fallocate
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if call(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
