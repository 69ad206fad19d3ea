"""maqet-exec on this host when something is wrong: a server that is gone, garbage, sessions left half-way."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest
from exec_rig import Server, with_server

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError
from pytest_maqet.guest.commands import CommandOutcome
from pytest_maqet.guest.exec_frames import (
    MORE,
    PADDING,
    SLOTS,
    FrameReader,
    Kind,
    Program,
    hello,
    packed,
    run_frames,
)


def test_a_server_that_stands_still_is_told(program: Path) -> None:
    async def work(server: Server) -> None:
        server.process.send_signal(signal.SIGSTOP)
        with pytest.raises(ChannelError, match="did not start the command within"):
            await server.run("echo never", 0.3)
        server.process.send_signal(signal.SIGCONT)
        assert await server.run("echo on") == CommandOutcome(0, b"on\n", b"")

    with_server(program, work)


def test_a_server_that_dies_ends_what_waits(program: Path) -> None:
    async def work(server: Server) -> None:
        with pytest.raises(ChannelError, match="broke"):
            await server.run(f"kill -9 {server.process.pid}; sleep 1")
        assert not server.port.usable

    with_server(program, work)


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello",
        b"MQ",
        b"MQE1",
        bytes(100_000),
        b"MQE1" * 5000,
        packed(7, 1, Kind.RUN, b"touch\0/tmp/never\0"),
        packed(7, 1, Kind.INPUT, b"x" * 9000)[:5000],
        hello(5)[:12] + b"\xff\xff\0\0",
    ],
    ids=["text", "2", "4", "zeros", "magics", "no session", "cut", "no hello"],
)
def test_garbage_before_does_no_harm(program: Path, garbage: bytes) -> None:
    async def work(server: Server) -> None:
        await asyncio.get_running_loop().sock_sendall(server.line, garbage)
        await server.port.connect(Deadline(60))
        assert await server.run("echo on") == CommandOutcome(0, b"on\n", b"")

    with_server(program, work, greet=False)


@pytest.mark.parametrize("cut", [20, 5000])
def test_a_host_that_left_half_a_frame_and_running_commands(program: Path, cut: int) -> None:
    """The other session's HELLO is swallowed by that frame, so it is told again, behind padding."""
    old = 99

    async def work(server: Server) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(server.line, hello(old))
        command = ("sh", "-c", "trap '' PIPE; while sleep 0.01; do echo late; done 2>/dev/null")
        program = Program(tuple(word.encode() for word in command))
        await loop.sock_sendall(server.line, run_frames(old, 1, program, has_input=True))
        half = packed(old, 1, Kind.INPUT, b"x" * 9000)[:cut]
        await loop.sock_sendall(server.line, half)
        await server.port.connect(Deadline(60))
        for number in range(20):
            assert (await server.run(f"echo {number}")).stdout == f"{number}\n".encode()
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
        for child in children.split():
            os.killpg(int(child), signal.SIGKILL)

    with_server(program, work, greet=False)


def test_arguments_that_were_not_finished_are_no_part_of_the_next_session(program: Path) -> None:
    async def work(server: Server) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(server.line, hello(99) + packed(99, 1, Kind.RUN, b"rm\0", MORE))
        await server.port.connect(Deadline(60))
        assert (await server.run(("echo", "on"))).stdout == b"on\n"

    with_server(program, work, greet=False)


def test_kill_and_drop(program: Path) -> None:
    async def work(server: Server) -> None:
        running = asyncio.ensure_future(server.run("sleep 4711 & sleep 4711"))
        await asyncio.sleep(0.2)
        connection = server.port._connection
        connection._write(packed(connection._session, 1, Kind.KILL))
        assert (await running).returncode == 128 + signal.SIGKILL
        for _ in range(3 * SLOTS):
            connection.begin(Program((b"sh", b"-c", b"sleep 0.1; echo nobody")), None, 10).drop()
        assert await server.run("echo on") == CommandOutcome(0, b"on\n", b"")

    with_server(program, work)


def test_the_server_ends_with_its_socket(program: Path) -> None:
    async def work(server: Server) -> None:
        server.line.close()
        await server.port.close()
        assert server.process.wait(30) == 0

    with_server(program, work)


def test_wrong_usage_is_told(program: Path) -> None:
    for arguments, status, text in [
        (["a", "b"], 2, b"usage: maqet-exec PORT | --fd N\n"),
        ([], 2, b"usage: maqet-exec PORT | --fd N\n"),
        (["/no/such"], 1, b"maqet-exec: the port cannot be opened\n"),
    ]:
        done = subprocess.run([program, *arguments], capture_output=True, timeout=30, check=False)
        assert (done.returncode, done.stderr) == (status, text)


def test_what_is_no_frame_breaks_the_connection() -> None:
    reader = FrameReader(7)
    assert list(reader.feed(b"rest of an earlier answer" + packed(6, 1, Kind.OUT, b"old"))) == []
    frames = packed(7, ~7 & 0xFFFFFFFF, Kind.WELCOME) + packed(7, 1, Kind.OUT, b"ours")
    got = [frame for at in range(len(frames)) for frame in reader.feed(frames[at : at + 1])]
    assert [(frame.kind, frame.data) for frame in got] == [(Kind.OUT, b"ours")]
    with pytest.raises(ValueError, match="not maqet-exec's"):
        list(reader.feed(b"x" * 20))


@pytest.mark.parametrize("seed", range(8))
def test_frames_in_any_order_do_no_harm(program: Path, seed: int) -> None:
    """Of the current session, with commands that are there and that are not."""
    dice = random.Random(seed)
    words = [b"cat\0", b"cat", b"true\0", b"nosuch\0", b"", b"sh\0-c\0exec >&-; cat >/dev/null\0"]
    words += [b"head\0-c\x0070000\0/dev/zero\0", b"x" * 16384]

    async def work(server: Server) -> None:
        loop = asyncio.get_running_loop()
        session = server.port._connection._session
        for _ in range(400):
            kind = dice.choice(
                [Kind.RUN, Kind.RUN, Kind.INPUT, Kind.INPUT, Kind.INPUT, Kind.KILL, Kind.DROP, 9]
            )
            data = dice.choice(words) if kind == Kind.RUN else os.urandom(dice.choice([0, 0, 1, 9000, 16384]))
            number = dice.randrange(1000, 1024)
            frame = packed(session, number, kind, data, dice.randrange(8))
            await loop.sock_sendall(server.line, frame[: dice.choice([len(frame)] * 20 + [len(frame) // 2])])
        ending = b"".join(packed(session, number, Kind.DROP) for number in range(1000, 1024))
        await loop.sock_sendall(server.line, PADDING + ending)
        assert await server.run("echo on") == CommandOutcome(0, b"on\n", b"")

    with_server(program, work)
