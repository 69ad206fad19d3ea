"""Consoles and events without end: memory and disk stay bounded, beginning and end are kept, waits go on."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from pytest_maqet.config import VmConfig
from pytest_maqet.guest.console_log import KEPT_TEXT, ConsoleLog
from pytest_maqet.qemu.events import KEPT_EVENTS, Mailbox
from pytest_maqet.runs.bounded_log import HEAD, STEP, TAIL, copy_log, give_back, last_bytes
from pytest_maqet.waiting.failures import FailureWatch

LINE = b"[ 1234.567890] the guest says this again and again, and there is no end in sight\r\n"
BLOCK = LINE * (1024 * 1024 // len(LINE))
MOST = HEAD + TAIL + 2 * STEP


def append(path: Path, data: bytes, times: int = 1) -> None:
    with path.open("ab") as log:
        for _ in range(times):
            log.write(data)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "serial-main.log"
    found.write_bytes(b"the first line\r\n")
    return found


def test_a_log_that_is_followed_keeps_its_beginning_and_its_end(path):
    log = ConsoleLog(path, lambda: None)
    for _ in range(12):
        append(path, BLOCK, 5)
        log.read()
        assert path.stat().st_blocks * 512 <= MOST, "the log takes too much of the disk"
    append(path, b"the last line\r\n")
    log.read()
    assert log.skipped == 0, "it was read as it came, and nothing was lost"
    assert log.end - log.first <= KEPT_TEXT + 1024 * 1024
    assert log.tail(1) == "the last line"
    assert path.stat().st_size == log.raw_end, "positions in the file have moved"
    assert path.read_bytes()[:14] == b"the first line"
    match, end = log.search(re.compile("last line"), 0, 0)
    assert (match[0], end) == ("last line", log.end - 1)
    log.close()


def test_a_reader_that_falls_behind_is_told_how_much_it_has_missed(path):
    log = ConsoleLog(path, lambda: None)
    log.read()
    append(path, BLOCK, 60)
    log.read()
    assert log.skipped > 0
    assert f"[… {log.skipped} bytes cut …]" in log.text()
    assert "\0" not in log.text(), "a hole was taken for text"
    assert log.raw_end == path.stat().st_size
    log.close()


def test_two_readers_of_one_log_do_not_disturb_each_other(path):
    one, other = ConsoleLog(path, lambda: None), ConsoleLog(path, lambda: None)
    for _ in range(5):
        append(path, BLOCK, 10)
        one.read()
    other.read()
    assert "\0" not in other.text()
    assert other.tail(1) == one.tail(1)
    for log in (one, other):
        log.close()


def test_raw_bytes_go_on_behind_the_cut(path):
    append(path, BLOCK, 60)
    give_back(path, 0)
    log = ConsoleLog(path, lambda: None)
    position, seen = 0, 0
    while data := log.raw(position)[1]:
        assert b"\0" not in data
        position = log.raw(position)[0] + len(data)
        seen += len(data)
    assert position == path.stat().st_size
    assert seen <= MOST
    log.close()


def test_a_copy_has_a_note_in_the_place_of_the_hole(path, tmp_path):
    append(path, BLOCK, 100)
    give_back(path, 0)
    copy = copy_log(path, tmp_path / "copy.log")
    data = copy.read_bytes()
    assert len(data) <= MOST
    assert b"\0" not in data
    note = re.search(r"\[… (\d+) bytes cut …\]".encode(), data)
    assert note is not None
    assert len(data) - len(note[0]) - 2 + int(note[1]) == path.stat().st_size
    assert last_bytes(path, 10) == LINE[-10:]


def test_a_short_log_is_copied_as_it_is(path, tmp_path):
    append(path, BLOCK, 3)
    assert copy_log(path, tmp_path / "copy.log").read_bytes() == path.read_bytes()


def test_where_holes_cannot_be_made_the_reason_is_told(path):
    append(path, BLOCK, 60)
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")  # what it does not follow stands for what cannot be cut
    cut, why = give_back(path, 0)
    assert cut == 0
    assert "cannot be kept short" in why


def test_a_flood_leaves_others_their_turn(path):
    """While 20 MB are waiting, a timer of the same loop goes off many times."""

    async def work() -> int:
        log = ConsoleLog(path, lambda: None)
        turns = 0
        append(path, BLOCK, 20)
        log.read_on()
        while log.raw_end < path.stat().st_size:
            await asyncio.sleep(0)
            turns += 1
        log.close()
        return turns

    assert asyncio.run(work()) > 20


def test_a_line_without_end_is_not_scanned_again_and_again(path):
    """Quadratic, this would look at 8 GB."""

    async def work() -> int:
        patterns = VmConfig.model_validate({"name": "web", "image": "builtin:nano"}).fail_on.patterns
        watch = FailureWatch("web", patterns, str, lambda: None)
        log = ConsoleLog(path, lambda: watch.scan(log))
        for _ in range(256):
            append(path, b"x" * 64 * 1024)
            log.read()
        append(path, b"\nKernel panic - not syncing: at last\n")
        log.read()
        log.close()
        return watch.panicked

    assert asyncio.run(work())


def test_events_without_end_are_bounded_and_counted():
    mailbox = Mailbox()
    for number in range(KEPT_EVENTS + 500):
        mailbox.put({"event": "RESET", "data": {"number": number}})
    assert mailbox.dropped == 500
    assert len(mailbox.since(0)) == KEPT_EVENTS
    first = mailbox.find("RESET", {})
    assert first is not None
    assert first.number == 500
    assert mailbox.find("RESET", {}, 700).number == 700
    assert mailbox.find("RESET", {"number": 800}, searched=801) is None
