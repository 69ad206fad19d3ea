"""What a terminal would obey is seen instead, whatever a guest, an agent or a file sends."""

from __future__ import annotations

import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_maqet.errors import CommandError, ConfigError, MaqetError
from pytest_maqet.guest.terminal_text import TerminalText
from pytest_maqet.visible_text import visible

SEQUENCES = [
    b"\x1b[2J", b"\x1b]0;title\x07", b"\x1b]8;;http://x\x1b\\", b"\x9b31m", b"\xc2\x9b2J", b"\x1bP", b"\x08",
    b"\r", b"\x1b", "\u202e\u2066".encode(), b"\xed\xa0\x80", b"\xff\xfe", b"\x1bc", b"\x0e\x0f",
]  # fmt: skip
HOSTILE = st.lists(st.binary(max_size=12) | st.sampled_from(SEQUENCES), max_size=12).map(b"".join)
TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def acts(text: str) -> list[str]:
    """Characters that a terminal obeys or that turn text round."""
    return [
        one
        for one in text.replace("\n", "").replace("\t", "")
        if unicodedata.category(one) in ("Cc", "Cs") or unicodedata.bidirectional(one) in TURNING
    ]


@given(HOSTILE, st.integers(1, 7))
@settings(max_examples=300, deadline=None)
def test_nothing_on_a_console_acts_in_a_report(data: bytes, step: int) -> None:
    decoder = TerminalText()
    text = "".join(decoder.feed(data[at : at + step]) for at in range(0, len(data), step))
    assert acts(visible(text)) == [], f"{text!r}"


@given(HOSTILE)
@settings(max_examples=200, deadline=None)
def test_nothing_in_an_error_acts(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for error in (
        MaqetError(text, hint=text),
        ConfigError(text, problems=[text, text]),
        CommandError(text, returncode=1, stdout=data, stderr=text),
    ):
        assert acts(str(error)) == []
        str(error).encode()
        assert all(acts(problem) == [] for problem in getattr(error, "problems", ()))
    assert error.stdout == data, "what a test asks for is as it was"


def test_what_is_seen() -> None:
    assert visible("a\x1b[2J\x9b\r\nb\tc\rd\u202ee") == "a\\x1b[2J\\x9b\nb\tc\\x0dd\\u202ee"
