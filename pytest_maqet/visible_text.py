"""Text of others (a guest, QEMU, a file) for a terminal: nothing in it acts, all of it is seen."""

from __future__ import annotations

import re

# Control characters of C0 and C1 (ECMA-48) but newline and tab; surrogates, which no stream takes; and what
# makes text read in another order than it is written (Unicode's bidirectional formatting, UAX #9), or break
# where no line ends.
_ACTIVE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\u2028\u2029]")


def visible(text: str) -> str:
    r"""The text with `\x1b` and the like for what a terminal would obey; `\r\n` becomes a newline."""
    return _ACTIVE.sub(_code, text.replace("\r\n", "\n"))


def _code(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
