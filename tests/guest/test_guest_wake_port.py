"""The host's side of waking, against sockets that behave like a bad guest (a good one: tests/machine)."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError
from pytest_maqet.guest.wake_port import SEED_BYTES, WakeAnswer, WakePort, new_seed

LENGTH = 88
Behaviour = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def pretended(behave: Behaviour) -> AsyncIterator[WakePort]:
    """A port to a socket where `behave` gets each message."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(EOFError, OSError, asyncio.CancelledError):
            while not writer.is_closing():
                await behave(await reader.readexactly(LENGTH), writer)
        writer.close()

    with tempfile.TemporaryDirectory(prefix="wake") as directory:
        path = Path(directory) / "wake"
        server = await asyncio.start_unix_server(serve, path)
        port = WakePort(path, "web")
        try:
            yield port
        finally:
            await port.close()
            server.close()


def wake(behave: Behaviour, *, seed: bytes | None = None, seconds: float = 30) -> WakeAnswer:
    async def run() -> WakeAnswer:
        async with pretended(behave) as port:
            return await port.wake(Deadline(seconds), seed=seed)

    return asyncio.run(run())


def test_the_message_has_this_moment_and_the_seed() -> None:
    seen: list[bytes] = []

    async def answer(message: bytes, writer: asyncio.StreamWriter) -> None:
        seen.append(message)
        writer.write(message[:8] + b"\0\0")

    before, seed = time.time(), new_seed()
    assert wake(answer, seed=seed) == WakeAnswer(clock=None, reseed=None)
    magic, _, seconds, nanoseconds, _, sent = struct.unpack("<4sIqII64s", seen[0])
    assert (magic, sent) == (b"MQW1", seed)
    assert before - 1e-3 <= seconds + nanoseconds / 1e9 <= time.time()
    assert sum(struct.unpack("<22I", seen[0])) % 2**32 == 0


def test_what_could_not_be_done_is_told_in_words() -> None:
    async def answer(message: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(message[:8] + bytes([1, 61]))

    assert wake(answer, seed=new_seed()) == WakeAnswer(
        clock="EPERM (Operation not permitted)", reseed="ENODATA (No data available)"
    )


def test_an_answer_to_somebody_else_is_passed_over() -> None:
    async def answer(message: bytes, writer: asyncio.StreamWriter) -> None:
        other = bytes([message[4] ^ 1])
        writer.write(message[:4] + other + message[5:8] + b"\1\1" + message[:8] + b"\0\0")

    assert wake(answer) == WakeAnswer(clock=None, reseed=None)


def test_bad_guests_are_told() -> None:
    async def silent(_: bytes, __: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async def gone(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def foreign(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"login:    ")

    with pytest.raises(ChannelError, match=r"web: nobody in the guest answered[\s\S]*maqet-wake"):
        wake(silent, seconds=0.1)
    with pytest.raises(ChannelError, match="web: the wake port broke"):
        wake(gone)
    with pytest.raises(ChannelError, match="not maqet-wake's"):
        wake(foreign)


def test_after_a_failure_it_connects_anew() -> None:
    turns: list[bytes] = []

    async def second_time(message: bytes, writer: asyncio.StreamWriter) -> None:
        turns.append(message)
        if len(turns) == 1:
            writer.close()
        else:
            writer.write(message[:8] + b"\0\0")

    async def run() -> WakeAnswer:
        async with pretended(second_time) as port:
            with pytest.raises(ChannelError):
                await port.wake(Deadline(30), seed=None)
            return await port.wake(Deadline(30), seed=None)

    assert asyncio.run(run()) == WakeAnswer(clock=None, reseed=None)


def test_a_message_that_is_lost_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_maqet.guest.wake_port.AGAIN", 0.2)  # nobody wants to wait for 5 s here
    seen: list[bytes] = []

    async def first_one_lost(message: bytes, writer: asyncio.StreamWriter) -> None:
        seen.append(message)
        if len(seen) > 1:
            writer.write(message[:8] + b"\0\0")

    seed = new_seed()
    assert wake(first_one_lost, seed=seed) == WakeAnswer(clock=None, reseed=None)
    assert [message[24:] for message in seen] == [seed, seed]
    assert seen[0][4:8] != seen[1][4:8], "an answer to the first would be taken for the second one's"


def test_no_socket(tmp_path: Path) -> None:
    with pytest.raises(ChannelError, match=r"web: the wake port at .* cannot be reached"):
        asyncio.run(WakePort(tmp_path / "none", "web").connect(Deadline(1)))


@pytest.mark.parametrize("seed", [b"", b"short", bytes(SEED_BYTES)], ids=["empty", "short", "zeros"])
def test_what_is_no_seed(seed: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a seed has 64 bytes"):
        asyncio.run(WakePort(tmp_path / "none", "web").wake(Deadline(1), seed=seed))
