"""What the helper in the guest answers on the serial console, picked out from everything else there.

Kernel messages and other programs write on the same line at any moment, even between two letters of an
answer. An answer is one line with a beginning and an end of its own, and tells its length; what is broken by
a foreign word does not have that form or length, and is asked for again.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from dataclasses import dataclass

from pytest_maqet.guest.console_log import ConsoleLog
from pytest_maqet.loop import Pulse

#: Outputs up to this many bytes each come with the answer that tells the end (see serial_helper.sh).
LONGEST_INLINE = 1500
#: A line of more bytes than this holds no answer: it is not kept until it ends.
LONGEST_LINE = 256 * 1024

_FRAME = re.compile(rb"~mq (([0-9a-f]+) ([a-z])([A-Za-z0-9+/=._ -]*)) (\d{1,9}) ~")
# A message of Linux on its console, with the time that printk puts before it; taken out, what it broke in
# two is whole again.
_KERNEL_MESSAGE = re.compile(rb"\[ *\d+\.\d{6}\][^\n]*\n")
_DATA = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)\r*\Z")

# Typed calls (which a line editor may have broken at the terminal's width), answers, and fetched data.
_TRAFFIC = (
    re.compile(r' sh (?:-c .for b in |\S+/\.maqet-)[^~]{0,1200}"~m""q[^~]{0,120}~"\'?\n'),
    re.compile(r"\n?~mq [^~\n]*~\n"),
    re.compile(r"^(?:[A-Za-z0-9+/]{76}\n)+(?:[A-Za-z0-9+/]+=*\n)?", re.MULTILINE),
)


@dataclass(frozen=True)
class Frame:
    """One answer: its kind (a letter, see serial_helper.sh) and its words."""

    kind: str
    words: tuple[str, ...]

    def number(self, index: int) -> int:
        """The word at `index` as a number, -1 where it is none."""
        try:
            return int(self.words[index])
        except (IndexError, ValueError):
            return -1


class FrameReader:
    """The answers to one id, from this moment on; loop-thread only."""

    def __init__(self, log: ConsoleLog, changed: Pulse, identity: str) -> None:
        self._log = log
        self._changed = changed
        self._identity = identity.encode("ascii")
        self._position = log.raw_end
        self._lines: list[bytes] = []
        self._partial = b""

    async def next(self, kinds: str, patience: float) -> Frame | None:
        """The next answer whose kind is one of `kinds`, or None when none came for `patience` seconds."""
        try:
            async with asyncio.timeout(patience):
                while True:
                    frame = self._frame(await self._line())
                    if frame is not None and frame.kind in kinds:
                        return frame
        except TimeoutError:
            return None

    async def block(self, size: int, patience: float) -> bytes | None:
        """The `size` bytes between an answer b and an answer c, or None when they came broken or too late.

        `patience` is in seconds, for each line.
        """
        if await self.next("b", patience) is None:
            return None
        encoded: list[bytes] = []
        try:
            while True:
                async with asyncio.timeout(patience):
                    line = await self._line()
                frame = self._frame(line)
                if frame is not None and frame.kind == "c":
                    break
                if _DATA.match(line):
                    encoded.append(line.rstrip(b"\r"))
            data = base64.b64decode(b"".join(encoded), validate=True)
        except (TimeoutError, binascii.Error):
            return None
        return data if len(data) == size else None

    async def _line(self) -> bytes:
        while not self._lines:
            begin, data = self._log.raw(self._position)
            if not data:
                await self._changed.wait()
                continue
            if begin > self._position or len(self._partial) > LONGEST_LINE:
                self._partial = b""  # a flood: what was cut off is no answer any more
            self._position = begin + len(data)
            text = _KERNEL_MESSAGE.sub(b"", self._partial + data)
            *lines, self._partial = text.split(b"\n")
            lines.reverse()
            self._lines = lines
        return self._lines.pop()

    def _frame(self, line: bytes) -> Frame | None:
        if b"~mq " not in line:
            return None
        for match in _FRAME.finditer(line):
            text, identity, kind, words, length = match.groups()
            if identity == self._identity and int(length) == len(text):
                return Frame(kind.decode("ascii"), tuple(words.decode("ascii").split()))
        return None


def inline_outputs(frame: Frame) -> tuple[bytes, bytes] | None:
    """Both outputs out of an answer e (status, sizes, `.`, base64, `.`, base64), or None when not in it."""
    text = " ".join(frame.words[3:])
    if not text.startswith("."):
        return None
    first, _, second = text[1:].partition(".")
    try:
        outputs = tuple(base64.b64decode(part.replace(" ", ""), validate=True) for part in (first, second))
    except binascii.Error:
        return None
    if [len(output) for output in outputs] != [frame.number(1), frame.number(2)]:
        return None
    return outputs[0], outputs[1]


def hide_traffic(text: str) -> str:
    """Console text without what commands over the console left there: for people to read."""
    for pattern in _TRAFFIC:
        text = pattern.sub("", text)
    return text
