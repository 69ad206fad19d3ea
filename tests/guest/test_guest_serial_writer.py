"""Writing to a serial line's socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from pathlib import Path

import pytest

from pytest_maqet.errors import ChannelError
from pytest_maqet.guest.serial_writer import SerialWriter


@contextlib.contextmanager
def listening():
    with tempfile.TemporaryDirectory(prefix="line") as directory:
        path = Path(directory) / "line"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen(8)
            yield SerialWriter(path), server


def take(server, *, first=1 << 16):
    """All that one client sends."""
    connection, _ = server.accept()
    with connection:
        data = connection.recv(first)
        while chunk := connection.recv(1 << 16):
            data += chunk
    return data


def test_what_is_sent_arrives_and_the_socket_is_let_go():
    async def run():
        with listening() as (writer, server):
            taking = asyncio.to_thread(take, server)
            data = b"line\n" * 100_000
            _, taken = await asyncio.gather(writer.send(data), taking)
            assert taken == data, "the peer saw the end of the connection before the end of the data"

    asyncio.run(run())


def test_it_waits_until_the_peer_has_read():
    async def run():
        with listening() as (writer, server):
            sending = asyncio.ensure_future(writer.send(b"hello\n"))
            await asyncio.sleep(0.2)
            assert not sending.done(), "QEMU drops what it has not read when the client hangs up"
            taken = await asyncio.to_thread(take, server)
            await sending
            assert taken == b"hello\n"

    asyncio.run(run())


def test_two_senders_do_not_mix():
    async def run():
        with listening() as (writer, server):
            other = SerialWriter(writer.path)
            texts = [b"a" * 5000, b"b" * 5000, b"c" * 5000]
            sending = [each.send(text) for each, text in zip((writer, other, writer), texts, strict=True)]

            def take_all():
                return [take(server) for _ in texts]

            *_, taken = await asyncio.gather(*sending, asyncio.to_thread(take_all))
            assert sorted(taken) == texts

    asyncio.run(run())


def test_a_cancelled_send_lets_go():
    async def run():
        with listening() as (writer, server):
            sending = asyncio.ensure_future(writer.send(b"never read\n"))
            await asyncio.sleep(0.1)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            await asyncio.to_thread(take, server)
            both = asyncio.gather(writer.send(b"next\n"), asyncio.to_thread(take, server))
            assert (await both)[1] == b"next\n"

    asyncio.run(run())


def test_a_peer_that_dies_is_a_channel_error():
    async def run():
        with listening() as (writer, server):
            sending = asyncio.ensure_future(writer.send(b"x" * 1_000_000))
            connection, _ = await asyncio.to_thread(server.accept)
            connection.close()
            with pytest.raises(ChannelError, match="cannot write to the serial line"):
                await asyncio.wait_for(sending, 5)

    asyncio.run(run())


def test_no_socket_is_a_channel_error():
    with pytest.raises(ChannelError, match="No such file"):
        asyncio.run(SerialWriter(Path("/nonexistent/line")).send(b"x"))
