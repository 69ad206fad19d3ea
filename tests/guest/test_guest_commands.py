"""What may be asked for, and how a failure is told."""

from __future__ import annotations

import pytest

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import CommandError
from pytest_maqet.guest.commands import (
    LONGEST_COMMAND,
    CommandOutcome,
    CommandRequest,
    CompletedCommand,
    command_timeout,
    describe_status,
)


def completed(returncode, stdout=b"", stderr=b"", **request):
    asked = CommandRequest.of("true", **request)
    return CompletedCommand.from_outcome(asked, CommandOutcome(returncode, stdout, stderr), duration=0.5)


@pytest.mark.parametrize(
    ("command", "keywords", "error", "words"),
    [
        ("", {}, ValueError, "empty"),
        ([], {}, ValueError, "empty"),
        (["", "a"], {}, ValueError, "empty"),
        ("a\0b", {}, ValueError, "NUL"),
        (["ls", 3], {}, TypeError, "made of str, got 3"),
        ("ls", {"env": {"A B": "x"}}, ValueError, "'A B' cannot be the name"),
        ("ls", {"env": {"A": "x\0"}}, ValueError, "NUL"),
        ("ls", {"env": {"A": 1}}, TypeError, "got 1"),
        ("ls", {"cwd": "/\0"}, ValueError, "NUL"),
        ("x" * (LONGEST_COMMAND + 1), {}, ValueError, "pass what is long as input"),
    ],
)
def test_what_no_guest_could_run_is_refused_before_anything_is_sent(command, keywords, error, words):
    with pytest.raises(error, match=words):
        CommandRequest.of(command, **keywords)


def test_text_input_is_encoded_as_the_output_is_decoded():
    assert CommandRequest.of("cat", input="é", encoding="latin-1").input == b"\xe9"
    assert CommandRequest.of("cat", input="é", encoding=None).input == "é".encode()


def test_output_is_text_or_bytes_as_asked():
    assert completed(0, b"\xff\n").stdout == "\ufffd\n", "bytes that are no text must not raise"
    assert completed(0, b"\xff\n", encoding=None).stdout == b"\xff\n"


def test_status_0_passes_and_another_raises_with_everything():
    completed(0).check("web")
    with pytest.raises(CommandError) as caught:
        completed(3, b"out text\n", b"err text\n").check("web")
    error = caught.value
    assert (error.returncode, error.stdout, error.stderr) == (3, "out text\n", "err text\n")
    for words in ("web: ", "ended with status 3", "true", "out text", "err text"):
        assert words in str(error), f"the message lacks {words!r}: {error}"


def test_the_message_shows_the_end_of_long_output_and_no_terminal_codes():
    with pytest.raises(CommandError) as caught:
        completed(1, b"begin" + b"x" * 5000 + b"\x1b[31mthe end").check("web")
    text = str(caught.value)
    assert "begin" not in text
    assert "the end" in text
    assert "\x1b" not in text, "control characters of a guest must not reach the reader's terminal"
    assert "last 2000 of" in text


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (127, "not found in the guest"),
        (126, "not executable"),
        (137, "SIGKILL"),
        (143, "SIGTERM"),
        (255, "255"),
    ],
)
def test_statuses_with_a_meaning_are_explained(status, words):
    assert words in describe_status(status)


def test_a_timeout_tells_what_was_printed_and_whether_it_still_runs():
    request = CommandRequest.of("make all")
    ended = command_timeout("web", request, Deadline(5), CommandOutcome(0, b"step 1\n", b""), ended=True)
    assert ended.stdout == "step 1\n"
    for words in ("web", "within 5 s", "make all", "were ended", "step 1"):
        assert words in str(ended), f"the message lacks {words!r}: {ended}"
    lost = command_timeout("web", request, Deadline(5), None, ended=False)
    assert "may still run" in str(lost)
    assert "could not be fetched" in str(lost)
