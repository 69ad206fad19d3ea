"""Bytes from a terminal line into plain text, as they come, in pieces of any size.

UTF-8 with replacement, carriage returns before a newline dropped, escape sequences removed (ECMA-48 control
sequences, operating-system commands and the two-byte escapes). What could still become an escape sequence
or a line end is held back until the next piece decides it.
"""

from __future__ import annotations

import codecs
import re

_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # control sequence: colours, cursor
    r"|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"  # strings: window title, device control
    r"|[ -/]*[0-OQ-WYZ\\`-~])"  # two-byte and charset escapes
)
_UNFINISHED = re.compile(r"(?:\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)?|\r+)\Z")
_LINE_END = re.compile(r"\r+\n")

#: An escape sequence that is longer than this is no escape sequence; it is let through as text.
LONGEST_ESCAPE = 1024


class TerminalText:
    """An incremental decoder; one per serial line."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, data: bytes) -> str:
        """The text that `data` completes."""
        text = self._held + self._decoder.decode(data)
        unfinished = _UNFINISHED.search(text, max(0, len(text) - LONGEST_ESCAPE))
        cut = unfinished.start() if unfinished else len(text)
        self._held = text[cut:]
        text = text[:cut]
        # The regular expressions are slow on a flood, and most of what comes has nothing for them.
        if "\x1b" in text:
            text = _ESCAPE.sub("", text)
        text = text.replace("\r\n", "\n")
        return _LINE_END.sub("\n", text) if "\r\n" in text else text
