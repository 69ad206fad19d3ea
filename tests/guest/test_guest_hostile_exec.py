"""What a hostile guest may send in maqet-exec's place ends in errors of ours; no traceback is logged."""

from __future__ import annotations

import asyncio
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_maqet.errors import ChannelError
from pytest_maqet.guest.exec_connection import ExecConnection
from pytest_maqet.guest.exec_frames import Kind, Program, packed, welcome

#: A command's outcome (status and error number), and what the event loop complained of.
Seen = tuple[tuple[int, int] | None, list[str]]

ANSWERS = [kind for kind in Kind if kind >= Kind.WELCOME]
frames = st.tuples(st.sampled_from(ANSWERS), st.integers(0, 3), st.binary(max_size=24))


def answered(answers: list[tuple[Kind, int, bytes]], tail: bytes) -> Seen:
    """Run a command in a guest that greets as it should, then sends these frames and bytes and hangs up."""

    async def guest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (session,) = struct.unpack_from("<I", await reader.readexactly(16), 4)
        writer.write(welcome(session))
        await reader.readexactly(16)  # the head of RUN
        writer.write(b"".join(packed(session, number, kind, data) for kind, number, data in answers) + tail)
        writer.close()

    async def work() -> Seen:
        complaints: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(str(context)))
        with tempfile.TemporaryDirectory(prefix="exec") as directory:
            path = Path(directory) / "exec"
            async with await asyncio.start_unix_server(guest, path):
                connection = await ExecConnection.opened(path, "web")
                await connection.greet()
                command = connection.begin(Program((b"cat",)), b"input" * 100, 1000)
                try:
                    outcome = await asyncio.wait_for(command.done, 10)
                except ChannelError:
                    outcome = None
                await connection.close()
        assert len(command.stdout) <= 1000
        return outcome, complaints

    return asyncio.run(work())


@settings(max_examples=200, deadline=None)
@given(answers=st.lists(frames, max_size=8), tail=st.binary(max_size=64))
def test_whatever_comes_ends_in_an_outcome_or_an_error_of_ours(
    answers: list[tuple[Kind, int, bytes]], tail: bytes
) -> None:
    _, complaints = answered(answers, tail)
    assert complaints == []


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Kind.PROCESS, b""),
        (Kind.PROCESS, b"123"),
        (Kind.TOOK, b"12345"),
        (Kind.EXIT, b"1234"),
        (Kind.EXIT, bytes(9)),
    ],
)
def test_a_frame_of_a_wrong_size_ends_the_connection(kind: Kind, data: bytes) -> None:
    outcome, complaints = answered([(kind, 1, data), (Kind.EXIT, 1, bytes(8))], b"")
    assert outcome is None, "nothing that such a guest says later is believed"
    assert complaints == []


def test_a_command_that_ends_as_it_should() -> None:
    process, end = struct.pack("<I", 7), struct.pack("<II", 3, 0)
    outcome, complaints = answered(
        [(Kind.PROCESS, 1, process), (Kind.OUT, 1, b"x"), (Kind.EXIT, 1, end)], b""
    )
    assert outcome == (3, 0)
    assert complaints == []
