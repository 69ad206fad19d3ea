"""Everything a serial line has said, followed as it grows.

QEMU writes each byte of the line into a log file of its own accord (`-chardev …,logfile=`), from the first
one on and whether or not anybody listens, so the guest is never blocked by us. This module follows that
file: inotify wakes it, and it wakes the waiters. It keeps the file's size bounded, too (`bounded_log`).

Positions are absolute: characters of plain text since the line's first byte.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path

from pytest_maqet.guest.terminal_text import TerminalText
from pytest_maqet.masking import masked
from pytest_maqet.runs.bounded_log import begins_again, cut_note, give_back, read_piece

#: A match may not be longer than this many characters: what was searched once is not searched again.
LONGEST_MATCH = 64 * 1024
#: This many characters of plain text are kept in memory; older ones are in the log file only.
KEPT_TEXT = 32 * 1024 * 1024
#: Of a flood so many bytes are taken in before others on the loop have their turn.
TURN = 256 * 1024

#: What is cut off is this much shorter than what is searched for secrets, in characters.
LONGEST_SECRET = 16 * 1024

_BLOCK = 64 * 1024


class ConsoleLog:
    """One serial line's output as plain text; loop-thread only, but for `path`."""

    def __init__(self, path: Path, on_text: Callable[[], None]) -> None:
        self.path = path
        self._on_text = on_text
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._decoder = TerminalText()
        self._blocks: list[str] = [""]
        self._first = 0  # position of the first character still kept
        self._end = 0
        self._cut = begins_again(0)  # up to here the log file was cut
        self._coming_back = False
        #: bytes of the log that were taken in so far, or skipped
        self.raw_end = 0
        #: bytes that were cut out of the log before they could be read
        self.skipped = 0
        #: why the log file cannot be kept short; empty where it can
        self.growing = ""

    @property
    def end(self) -> int:
        """The position after the last character."""
        return self._end

    @property
    def first(self) -> int:
        """The position of the first character that is still in memory."""
        return self._first

    def read(self, limit: int | None = None) -> bool:
        """Take in what the log has grown by up to now, and say so when there was something.

        At most about `limit` bytes, if given; whether that left more to read. Nothing once closed.
        """
        if self._fd < 0:
            return False
        begin = self.raw_end
        size = os.fstat(self._fd).st_size
        stop = size if limit is None else min(size, begin + limit)
        while self.raw_end < stop:
            position, data = read_piece(self._fd, self.raw_end)
            if not data:
                break
            self._skip(position - self.raw_end)
            self.raw_end = position + len(data)
            self._append(self._decoder.feed(data))
        if begins_again(size) > self._cut:
            self._cut, self.growing = give_back(self.path, self._cut)
        if self.raw_end > begin:
            self._on_text()
        return self.raw_end < size

    def read_on(self) -> None:
        """Take in one `TURN`, and come back for the rest of a flood when others had theirs."""
        if self.read(TURN) and not self._coming_back:
            self._coming_back = True
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._coming_back = False
        self.read_on()

    def text(self, start: int = 0, end: int | None = None) -> str:
        """Plain text from `start` to `end` (default: all); what is no longer kept is left out."""
        stop = self._end if end is None else end
        position = self._end
        wanted: list[str] = []
        for block in reversed(self._blocks):
            position -= len(block)
            if position < stop:
                wanted.append(block[max(0, start - position) : stop - position])
            if position <= start:
                break
        return "".join(reversed(wanted))

    def search(self, pattern: re.Pattern[str], start: int, searched: int) -> tuple[re.Match[str], int] | None:
        """The first match at or after `start`, and the position where it ends.

        `searched` says how far an earlier call with the same arguments found nothing: only `LONGEST_MATCH`
        characters before it are looked at again.
        """
        begin = max(start, searched - LONGEST_MATCH, self._first)
        match = pattern.search(self.text(begin))
        return (match, begin + match.end()) if match else None

    def tail(self, lines: int) -> str:
        """The last `lines` lines, secrets masked."""
        # Masked before it is cut: half a secret would not be found.
        text = masked(self.text(max(0, self._end - lines * 400 - LONGEST_SECRET)))[-lines * 400 :]
        return "\n".join(text.rstrip("\n").split("\n")[-lines:])

    def raw(self, start: int = 0) -> tuple[int, bytes]:
        """The next bytes of the log at or after byte `start`, as the guest sent them, and where they begin.

        A piece of some hundred kilobytes at most, empty at the end; what was cut out of the log is skipped.
        """
        with self.path.open("rb") as log:
            return read_piece(log.fileno(), start)

    def close(self) -> None:
        """Close the log file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _skip(self, count: int) -> None:
        """Nobody will ever know what these bytes said; the text says that there were some."""
        if count:
            self.skipped += count
            self._decoder = TerminalText()
            self._append(cut_note(count))

    def _append(self, text: str) -> None:
        self._end += len(text)
        if len(self._blocks[-1]) < _BLOCK:
            self._blocks[-1] += text
        else:
            self._blocks.append(text)
        while self._end - self._first > KEPT_TEXT and len(self._blocks) > 1:
            self._first += len(self._blocks.pop(0))
