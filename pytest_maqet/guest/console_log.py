"""Everything a serial line has said, followed as it grows.

QEMU writes each byte of the line into a log file of its own accord (`-chardev …,logfile=`), from the first
one on and whether or not anybody listens, so the guest is never blocked by us. This module follows that
file: inotify wakes it, and it wakes the waiters.

Positions are absolute: characters of plain text since the line's first byte.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from pytest_maqet.guest.terminal_text import TerminalText
from pytest_maqet.masking import masked

#: A match may not be longer than this many characters: what was searched once is not searched again.
LONGEST_MATCH = 64 * 1024
#: This many characters of plain text are kept in memory; older ones are in the log file only.
KEPT_TEXT = 32 * 1024 * 1024

#: What is cut off is this much shorter than what is searched for secrets, in characters.
LONGEST_SECRET = 16 * 1024

_BLOCK = 64 * 1024
_READ = 256 * 1024


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
        #: bytes read from the log so far
        self.raw_end = 0

    @property
    def end(self) -> int:
        """The position after the last character."""
        return self._end

    def read(self) -> None:
        """Take in what the log has grown by, and say so when there was something; nothing once closed."""
        if self._fd < 0:
            return
        grown = False
        while data := os.read(self._fd, _READ):
            grown = True
            self.raw_end += len(data)
            self._append(self._decoder.feed(data))
            if len(data) < _READ:
                break
        if grown:
            self._on_text()

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

    def raw(self, start: int = 0) -> bytes:
        """The bytes of the log from byte `start` on, as the guest sent them."""
        with self.path.open("rb") as log:
            log.seek(start)
            return log.read()

    def close(self) -> None:
        """Close the log file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append(self, text: str) -> None:
        self._end += len(text)
        if len(self._blocks[-1]) < _BLOCK:
            self._blocks[-1] += text
        else:
            self._blocks.append(text)
        while self._end - self._first > KEPT_TEXT and len(self._blocks) > 1:
            self._first += len(self._blocks.pop(0))
