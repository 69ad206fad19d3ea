"""An agent in the guest that means harm: whatever it answers ends in an error of ours, in time."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from agent_rig import pretended_agent
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError, CommandTimeout
from pytest_maqet.guest.commands import CommandOutcome, CommandRequest

#: What it may answer to one request, by the request's id.
Answer = Callable[[str, Any], bytes]


def returns(value: Any) -> Answer:
    return lambda _command, number: json.dumps({"return": value, "id": number}).encode() + b"\n"


def after_sync(answer: Answer) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
    """An agent that proves itself like a good one, and answers everything else by `answer`."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        text = ""
        while data := await reader.read(1 << 16):
            text = (text + data.lstrip(b"\xff").decode()).lstrip()
            try:
                asked, end = json.JSONDecoder().raw_decode(text)
            except ValueError:
                continue  # half of it; there is no line end to wait for
            text = text[end:]
            if asked["execute"] == "guest-sync":
                value = asked["arguments"]["id"]
                writer.write(json.dumps({"return": value, "id": asked["id"]}).encode() + b"\n")
            else:
                writer.write(answer(asked["execute"], asked["id"]))
            await writer.drain()

    return behave


def run_against(answer: Answer, seconds: float = 2.0) -> CommandOutcome:
    async def run() -> CommandOutcome:
        async with pretended_agent(after_sync(answer)) as channel:
            return await channel.run(CommandRequest.of("true"), Deadline(seconds))

    return asyncio.run(asyncio.wait_for(run(), seconds + 15))


def to_status(status: Any) -> Answer:
    """The command is started, and this is said of it."""
    return lambda command, number: returns({"pid": 7} if command == "guest-exec" else status)(command, number)


HOSTILE: dict[str, Answer] = {
    "no process id": returns({}),
    "a process id that is text": returns({"pid": "7; rm -rf /"}),
    "a process id that is infinite": lambda _c, n: f'{{"return": {{"pid": 1e999}}, "id": "{n}"}}\n'.encode(),
    "a list for an object": returns([1, 2]),
    "nothing": returns(None),
    "an error without words": lambda _c, n: json.dumps({"error": {}, "id": n}).encode() + b"\n",
    "an error that is a number": lambda _c, n: json.dumps({"error": 7, "id": n}).encode() + b"\n",
    "a list for a message": lambda _c, _n: b"[1]\n",
    "no UTF-8": lambda _c, _n: b'{"return": "\xff\xfe\x80"}\n',
    "nested without end": lambda _c, _n: b"[" * 200_000 + b"\n",
    "a number of a million digits": lambda _c, _n: b'{"return": ' + b"9" * 1_000_000 + b"}\n",
    "NULs": lambda _c, _n: b"\0" * 1000 + b"\n",
    "nothing said of the end": to_status({}),
    "an end that is text": to_status({"exited": "yes", "exitcode": "zero"}),
    "output that is no base64": to_status({"exited": True, "exitcode": 0, "out-data": "***"}),
    "output that is a number": to_status({"exited": True, "exitcode": 0, "out-data": 12}),
    "a status out of range": to_status({"exited": True, "exitcode": 2**80}),
    "a signal that is a list": to_status({"exited": True, "signal": [9]}),
}


def test_a_good_one_is_believed() -> None:
    """Else nothing below would show anything."""
    good = to_status({"exited": True, "exitcode": 3, "out-data": "aGk="})
    assert run_against(good, 20) == CommandOutcome(3, b"hi", b"")


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE)
def test_an_answer_against_the_protocol_is_told(answer: Answer) -> None:
    with pytest.raises((ChannelError, CommandTimeout)) as caught:
        run_against(answer)
    assert len(str(caught.value)) < 10_000, "the guest decides how long an error is"


def test_an_answer_to_another_request_is_not_taken() -> None:
    with pytest.raises((ChannelError, CommandTimeout)):
        run_against(
            lambda command, _number: to_status({"exited": True, "exitcode": 0})(command, "__qmp#99999")
        )


def test_a_line_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    # 64 MiB may be an honest answer, and would take a while here.
    monkeypatch.setattr("pytest_maqet.guest.agent_session.LONGEST_ANSWER", 1 << 20)
    with pytest.raises(ChannelError):
        run_against(lambda _command, _number: b'{"return": "' + b"x" * (3 << 20))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
statuses = st.fixed_dictionaries(
    {},
    optional={
        name: json_values | st.just(True)
        for name in ("exited", "exitcode", "signal", "out-data", "err-data", "out-truncated")
    },
)


@settings(max_examples=60, deadline=None)
@given(status=statuses | json_values)
def test_whatever_is_said_of_a_command_is_an_outcome_or_an_error_of_ours(status: Any) -> None:
    try:
        outcome = run_against(to_status(status), 0.05)
    except (ChannelError, CommandTimeout):
        return
    assert isinstance(outcome.returncode, int)
    assert isinstance(outcome.stdout, bytes)


@pytest.mark.parametrize(
    "info",
    [None, 7, [], {}, {"supported_commands": 7}, {"supported_commands": [7, {"enabled": True, "name": [1]}]}],
    ids=repr,
)
def test_an_agent_that_lies_about_itself_is_none(info: Any) -> None:
    async def run() -> None:
        async with pretended_agent(after_sync(returns(info))) as channel:
            with pytest.raises(ChannelError, match="guest agent"):
                await channel.probe(Deadline(5))

    asyncio.run(run())


def refusal(description: Any) -> Answer:
    said = {"class": "GenericError", "desc": description}
    return lambda _command, number: json.dumps({"error": said, "id": number}).encode() + b"\n"


def test_what_it_says_of_an_error_is_shown_in_part_and_tame() -> None:
    with pytest.raises(ChannelError, match="refused guest-exec") as caught:
        run_against(refusal("\x1b]0;owned\x07\u202e" + "x" * 1_000_000))
    said = str(caught.value)
    assert len(said) < 5000, f"the guest decides how long an error is: {len(said)} characters"
    assert "\\x1b]0;owned\\x07\\u202e" in said, said[:200]


def test_output_of_many_megabytes_is_whole() -> None:
    data = b"0123456789abcdef" * (1 << 20)
    encoded = base64.b64encode(data).decode()
    outcome = run_against(to_status({"exited": True, "exitcode": 0, "out-data": encoded}), 60)
    assert outcome.stdout == data


@settings(max_examples=60, deadline=None)
@given(value=json_values, number=json_values, key=st.sampled_from(["return", "error", "event", "QMP"]))
def test_whatever_is_answered_is_an_outcome_or_an_error_of_ours(value: Any, number: Any, key: str) -> None:
    def answer(_command: str, asked: str) -> bytes:
        return json.dumps({key: value, "id": number if number is not None else asked}).encode() + b"\n"

    with pytest.raises((ChannelError, CommandTimeout)):
        run_against(answer, 0.05)
