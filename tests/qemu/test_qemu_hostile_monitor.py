"""Behind a monitor's socket is no QEMU, or one that a guest has taken over: errors of ours, in time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import tempfile
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError, MaqetError, QMPCommandError
from pytest_maqet.qemu import monitor as monitor_module
from pytest_maqet.qemu.events import KEPT_CHARACTERS, Mailbox
from pytest_maqet.qemu.monitor import LONGEST_EVENT, Monitor

GREETING = b'{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": []}}\n'
SOON = 0.1
Behave = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Use = Callable[[Monitor], Awaitable[object]]


def against(behave: Behave, use: Use, on_event: Callable[[Any], None] = lambda _message: None) -> object:
    """The value of `use`, called with a monitor on the socket of somebody who behaves like that.

    Fails for noise: exceptions that nobody fetched, and whatever is logged.
    """
    noise: list[object] = []
    handler = logging.Handler()
    handler.emit = noise.append  # type: ignore[method-assign]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await behave(reader, writer)
        writer.close()

    async def run() -> object:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: noise.append(context))
        with tempfile.TemporaryDirectory(prefix="qmp") as folder:
            path = Path(folder) / "qmp"
            server = await asyncio.start_unix_server(serve, path)
            monitor = Monitor(path, on_event=on_event, on_lost=lambda: None, vm_name="web")
            try:
                return await asyncio.wait_for(use(monitor), 30)
            finally:
                await monitor.close()
                server.close()
                for task in asyncio.all_tasks() - {asyncio.current_task()}:  # type: ignore[arg-type]
                    task.cancel()

    logging.getLogger().addHandler(handler)
    try:
        found = asyncio.run(run())
    finally:
        logging.getLogger().removeHandler(handler)
    assert not noise, f"the user is shown {noise}"
    return found


async def connect(monitor: Monitor) -> None:
    await monitor.connect(Deadline.after(SOON))


async def ask(monitor: Monitor, patience: float = SOON) -> object:
    await monitor.connect(Deadline.after(10))
    return await monitor.execute("query-status", None, Deadline.after(patience))


async def ask_patiently(monitor: Monitor) -> object:
    return await ask(monitor, 20)


def saying(*texts: bytes, stay: bool = False) -> Behave:
    """Says this at once, and hangs up, or stays and says no more."""

    async def behave(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for text in texts:
            writer.write(text)
            await writer.drain()
        if stay:
            await asyncio.sleep(60)

    return behave


def answering(*answers: Callable[[str], bytes], stay: bool = True) -> Behave:
    """A QEMU that greets well, and answers its first command with what is made of its id."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        asked = json.loads(await reader.read(1 << 16))  # no newline follows
        writer.write(json.dumps({"return": {}, "id": asked.get("id")}).encode() + b"\n")
        asked = json.loads(await reader.read(1 << 16))  # no newline follows
        for answer in answers:
            writer.write(answer(json.dumps(asked["id"])))
            await writer.drain()
        if stay:
            await asyncio.sleep(60)

    return behave


def check_told(error: MaqetError) -> None:
    said = str(error)
    assert said.startswith("web: "), f"which VM? {said[:200]}"
    assert len(said) < 5000, f"QEMU decides how long an error is: {len(said)} characters"
    assert "Traceback" not in said


GREETINGS = {
    "nothing": b"",
    "no JSON": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "an empty line": b"\n",
    "half of one": GREETING[:30],
    "a list": b"[1]\n",
    "null": b"null\n",
    "no QMP": b'{"hello": 1}\n',
    "QMP is text": b'{"QMP": "yes"}\n',
    "a version of null": b'{"QMP": {"version": null, "capabilities": []}}\n',
    "capabilities of a number": b'{"QMP": {"version": {}, "capabilities": 7}}\n',
    "no UTF-8": b'{"QMP": "\xff\xfe"}\n',
    "nested without end": b'{"QMP": ' + b"[" * 200_000 + b"\n",
    "a number without end": b'{"QMP": ' + b"9" * 100_000 + b"}\n",
    "NULs": b"\0" * 10_000 + b"\n",
    "several, and no answer": GREETING * 3,
    "an event": b'{"event": "RESET"}\n',
    "an event that is a list": b'{"event": [1]}\n',
    "an error": b'{"error": {"class": "GenericError", "desc": "x"}}\n',
}


@pytest.mark.parametrize("stay", [True, False], ids=["stays", "hangs up"])
@pytest.mark.parametrize("greeting", GREETINGS.values(), ids=GREETINGS)
def test_a_greeting_that_is_none(greeting: bytes, stay: bool) -> None:
    with pytest.raises(MaqetError) as caught:
        against(saying(greeting, stay=stay), connect)
    check_told(caught.value)


@pytest.mark.parametrize("before", [b"", GREETING], ids=["greeting", "answer"])
def test_a_line_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch, before: bytes) -> None:
    monkeypatch.setattr(monitor_module, "LONGEST_ANSWER", 1 << 20)
    taken = 0

    async def behave(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        writer.write(before + b'{"QMP": "')
        for _ in range(200):
            writer.write(b"x" * (1 << 18))
            await writer.drain()
            taken += 1 << 18

    with pytest.raises(ChannelError) as caught:
        against(behave, lambda monitor: monitor.connect(Deadline.after(10)))
    check_told(caught.value)
    assert taken < 8 << 20, f"{taken >> 20} MiB of a line were taken"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
lines = st.one_of(
    st.binary(max_size=60),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.builds(
        lambda version, capabilities, more: json.dumps(
            {"QMP": {"version": version, "capabilities": capabilities} | more}
        ).encode(),
        json_values, json_values, st.dictionaries(st.text(max_size=5), json_values, max_size=2),
    ),
    st.builds(lambda data, stamp: json.dumps({"event": "X", "data": data, "timestamp": stamp}).encode(),
              json_values, json_values),
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(said=st.lists(lines, max_size=4), stay=st.booleans())
def test_whatever_is_said_first_ends_in_an_error_of_ours(said: list[bytes], stay: bool) -> None:
    async def use(monitor: Monitor) -> None:
        await monitor.connect(Deadline.after(0.05))
        await monitor.execute("query-status", None, Deadline.after(0.05))

    with pytest.raises(MaqetError) as caught:
        against(saying(b"".join(line + b"\n" for line in said), stay=stay), use)
    check_told(caught.value)


def test_a_good_answer_is_believed() -> None:
    """Else nothing below would show anything."""
    good = answering(lambda number: b'{"return": {"status": "running"}, "id": %s}\n' % number.encode())
    assert against(good, ask_patiently) == {"status": "running"}


ANSWERS: dict[str, Callable[[str], bytes]] = {
    "another id": lambda _n: b'{"return": {}, "id": "__qmp#99999"}\n',
    "an id that is a list": lambda _n: b'{"return": {}, "id": [1]}\n',
    "no id": lambda _n: b'{"return": {}}\n',
    "neither return nor error": lambda n: b'{"id": %s}\n' % n.encode(),
    "an error that is text": lambda n: b'{"error": "no", "id": %s}\n' % n.encode(),
    "an error without words": lambda n: b'{"error": {"class": 7}, "id": %s}\n' % n.encode(),
    "an error without id": lambda _n: b'{"error": {"class": "GenericError", "desc": "x"}}\n',
    "a list": lambda _n: b"[]\n",
    "no UTF-8": lambda _n: b'{"return": "\xff"}\n',
    "nested without end": lambda _n: b"[" * 200_000 + b"\n",
    "a number without end": lambda _n: b'{"return": ' + b"9" * 100_000 + b"}\n",
    "half of one": lambda _n: b'{"return": ',
}


@pytest.mark.parametrize("stay", [True, False], ids=["stays", "hangs up"])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_against_the_protocol(answer: Callable[[str], bytes], stay: bool) -> None:
    with pytest.raises(MaqetError) as caught:
        against(answering(answer, stay=stay), ask)
    check_told(caught.value)


def test_a_refusal_is_shown_in_part_and_tame() -> None:
    text = json.dumps("\x1b]0;owned\x07" + "x" * 1_000_000)
    refusal = answering(lambda n: f'{{"error": {{"class": "C", "desc": {text}}}, "id": {n}}}\n'.encode())
    with pytest.raises(QMPCommandError) as caught:
        against(refusal, ask_patiently)
    said = str(caught.value)
    assert len(said) < 5000
    assert "\x1b" not in said
    assert "\\x1b]0;owned\\x07" in said


EVENTS = {
    "a name that is a number": {"event": 7},
    "data that is a list": {"event": "RESET", "data": [1]},
    "data that is text": {"event": "STOP", "data": "x"},
    "a timestamp that is text": {"event": "STOP", "timestamp": "now"},
    "10 MB": {"event": "STOP", "data": {"x": "y" * 10_000_000}},
}


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_an_event_that_no_qemu_sends_ends_the_session_and_says_so(event: dict[str, Any]) -> None:
    got: list[Any] = []
    with pytest.raises(ChannelError, match="event") as caught:
        against(answering(lambda _n: json.dumps(event).encode() + b"\n"), ask_patiently, got.append)
    check_told(caught.value)
    assert got == [], "it was handed on"


def test_an_event_that_is_not_understood_ends_the_session_and_says_so() -> None:
    def port_changed(message: Any) -> None:
        bool(message["data"]["open"])

    event = b'{"event": "VSERPORT_CHANGE", "data": {}}\n'
    with pytest.raises(
        ChannelError, match=r"the event VSERPORT_CHANGE is not understood: KeyError\('open'\)"
    ):
        against(answering(lambda _n: event), ask_patiently, port_changed)


def test_an_event_without_a_timestamp_is_one() -> None:
    got: list[Any] = []
    event = b'{"event": "RESET", "data": {"guest": true}}\n'
    good = answering(lambda n: event + b'{"return": 1, "id": %s}\n' % n.encode())
    assert against(good, ask_patiently, got.append) == 1
    assert got == [{"event": "RESET", "data": {"guest": True}}]


def test_large_events_without_end_take_bounded_memory() -> None:
    mailbox = Mailbox()
    text = "x" * (LONGEST_EVENT - 1000)
    tracemalloc.start()
    try:
        for number in range(300):  # 75 MB
            mailbox.put({"event": "X", "data": {"text": f"{text}{number}"}})
        used, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 2 * KEPT_CHARACTERS, f"{used >> 20} MiB are kept"
    assert mailbox.count == 300
    kept = mailbox.since(0)
    assert mailbox.dropped == 300 - len(kept)
    assert kept[-1].number == 299, "the last ones stay"
