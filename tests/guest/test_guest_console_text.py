"""Console bytes into text, the followed log, and the answers picked out from it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_maqet.guest.console_log import ConsoleLog
from pytest_maqet.guest.serial_frames import Frame, FrameReader, hide_traffic, inline_outputs
from pytest_maqet.guest.terminal_text import LONGEST_ESCAPE, TerminalText
from pytest_maqet.loop import Pulse


def pieces(data, cuts):
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(bounds)]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain\r\n", "plain\n"),
        (b"two\r\r\nreturns", "two\nreturns"),
        (b"\x1b[31;1mred\x1b[0m\r\n", "red\n"),
        (b"\x1b]0;title\x07after", "after"),
        (b"\x1b]0;title\x1b\\after", "after"),
        (b"\x1b(Bcharset \x1b7saved\x1b8", "charset saved"),
        (b"\x1b[?2004hbash$ \x1b[6n", "bash$ "),
        ("é€😀".encode(), "é€😀"),
        (b"bad \xff\xfe bytes", "bad \ufffd\ufffd bytes"),
        (b"a\rb", "a\rb"),
    ],
)
def test_text_is_plain_wherever_it_is_cut(data, text):
    for cut in range(len(data) + 1):
        decoder = TerminalText()
        got = decoder.feed(data[:cut]) + decoder.feed(data[cut:])
        assert got == text, f"cut at byte {cut}"


@given(st.binary(max_size=200), st.lists(st.integers(min_value=0), max_size=6))
def test_pieces_of_any_size_give_the_same_text(data, cuts):
    whole, cut = TerminalText(), TerminalText()
    expected = whole.feed(data + b"end\n")
    assert "".join(cut.feed(piece) for piece in pieces(data + b"end\n", cuts)) == expected


def test_an_escape_sequence_without_end_does_not_swallow_the_console():
    decoder = TerminalText()
    text = decoder.feed(b"\x1b]0;" + b"x" * (LONGEST_ESCAPE + 100))
    text += decoder.feed(b"\nKernel panic - not syncing\n")
    assert "Kernel panic" in text


@contextlib.contextmanager
def followed(tmp_path):
    path = tmp_path / "console.log"
    path.write_bytes(b"")
    beats = []
    log = ConsoleLog(path, lambda: beats.append(None))
    with path.open("ab", buffering=0) as file:
        yield log, file, beats
    log.close()


def test_the_log_is_followed_and_searched_by_position(tmp_path):
    with followed(tmp_path) as (log, file, beats):
        log.read()
        assert not beats, "nothing came, nobody is to be woken"
        file.write(b"boot 1\r\nready\r\n")
        log.read()
        file.write(b"boot 2\r\nready\r\n")
        log.read()
        assert len(beats) == 2
        assert log.text() == "boot 1\nready\nboot 2\nready\n"
        assert log.text(7, 13) == "ready\n"
        match, first = log.search(re.compile("ready"), 0, 0)
        assert (match.group(), first) == ("ready", 12)
        _, second = log.search(re.compile("ready"), first, first)
        assert second == 25
        assert log.search(re.compile("ready"), second, second) is None
        assert log.tail(2) == "boot 2\nready"
        assert log.raw(15) == (15, b"boot 2\r\nready\r\n")


def test_a_match_across_two_reads(tmp_path):
    with followed(tmp_path) as (log, file, _):
        file.write(b"guest re")
        log.read()
        assert log.search(re.compile("guest ready"), 0, 0) is None
        file.write(b"ady\r\n")
        log.read()
        assert log.search(re.compile("guest ready"), 0, 8) is not None


def say(text):
    return f"\r\n~mq {text} {len(text)} ~\r\n".encode()


def read_frame(tmp_path, data, kinds="e", before=b""):
    async def run():
        with followed(tmp_path) as (log, file, _):
            file.write(before)
            log.read()
            reader = FrameReader(log, Pulse(), "ab12")
            file.write(data)
            log.read()
            return await reader.next(kinds, 0.05)

    return asyncio.run(run())


def test_an_answer_is_found_among_everything_else(tmp_path):
    data = (
        b"# sh h s ab12\r\n[    1.5] noise\r\n"
        + say("cd34 e 1")
        + say("ab12 w")
        + say("ab12 e 0 3 0 . aGkK . ")
    )
    assert read_frame(tmp_path, data) == Frame("e", ("0", "3", "0", ".", "aGkK", "."))


def test_a_kernel_message_in_the_middle_is_taken_out(tmp_path):
    whole = say("ab12 e 7 0 0 . .")
    for cut in range(len(whole)):
        data = whole[:cut] + b"[   12.345678] eth0: link is up\r\n" + whole[cut:]
        frame = read_frame(tmp_path, data)
        assert frame == Frame("e", ("7", "0", "0", ".", ".")), f"cut at byte {cut}"


@pytest.mark.parametrize(
    "data",
    [
        b"~mq ab12 e 77 0 0 . . 16 ~\n",  # a letter came twice
        b"~mq ab12 e 7 0 0 . . ~\n",
        b"~mq ab12 e 7 0 0 \n. . 16 ~\n",
        b'echo "~m""q ab12 e 7 0 0 . . 16 ~"\n',  # the echo of what is typed
        b"~mq ab13 e 7 0 0 . . 16 ~\n",
        b"~mq ab12 e 7 0 0 . . 16 ~",  # not finished yet
        b"~mq ab12 e 7 0 0 . . " + b"9" * 5000 + b" ~\n",  # more digits than Python makes a number of
    ],
)
def test_what_is_not_whole_is_no_answer(tmp_path, data):
    assert read_frame(tmp_path, data) is None


def test_an_answer_from_before_is_not_this_one(tmp_path):
    assert read_frame(tmp_path, b"", before=say("ab12 e 7 0 0 . .")) is None


@given(out=st.binary(max_size=1500), err=st.binary(max_size=1500))
def test_short_outputs_come_with_the_answer(out, err):
    encoded = [base64.encodebytes(part).decode().split() for part in (out, err)]
    frame = Frame("e", ("0", str(len(out)), str(len(err)), ".", *encoded[0], ".", *encoded[1]))
    assert inline_outputs(frame) == (out, err)


@pytest.mark.parametrize(
    "words",
    [
        ("0", "3", "0", ".", "aGkKaGkK", "."),
        ("0", "3", "0", ".", "aGk", "."),
        ("0", "3", "0"),
        ("0", "3", "0", "."),
    ],
)
def test_outputs_that_do_not_fit_their_sizes_are_refused(words):
    assert inline_outputs(Frame("e", words)) is None


def test_a_block_with_foreign_lines_in_it(tmp_path):
    data = os.urandom(5000)
    lines = base64.encodebytes(data).replace(b"\n", b"\r\n")

    async def run(sent):
        with followed(tmp_path) as (log, file, _):
            reader = FrameReader(log, Pulse(), "ab12")
            file.write(sent)
            log.read()
            return await reader.block(len(data), 0.05)

    between = lines[:780] + b"systemd: a word\r\n" + lines[780:]
    assert asyncio.run(run(say("ab12 b") + between + say("ab12 c"))) == data
    inside = lines[:790] + b"[    3.000000] a word\r\n" + lines[790:]
    assert asyncio.run(run(say("ab12 b") + inside + say("ab12 c"))) == data
    for place in (80, 99, 3000, 6600):
        doubled = lines[: place + 1] + lines[place:]
        assert asyncio.run(run(say("ab12 b") + doubled + say("ab12 c"))) is None, f"byte {place} came twice"
    assert asyncio.run(run(say("ab12 b") + lines)) is None, "a block without its end is not whole"


@given(st.text(max_size=300))
def test_hiding_the_traffic_never_fails(text):
    hide_traffic(text)


def test_what_is_no_traffic_is_not_hidden():
    text = "# cat /etc/motd\nhello ~ world\n~/file\nsh script.sh\n"
    assert hide_traffic(text) == text
