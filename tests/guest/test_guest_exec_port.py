"""maqet-exec and the host's side of it, on this host: the program checked in, and one compiled here."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from exec_rig import ENVIRONMENT, Server, with_server

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError, CommandTimeout
from pytest_maqet.guest.commands import CommandOutcome, CommandRequest
from pytest_maqet.guest.exec_frames import (
    SLOTS,
)


def outcome(program: Path, command: str | tuple[str, ...], data: bytes | None = None) -> CommandOutcome:
    got: list[CommandOutcome] = []

    async def work(server: Server) -> None:
        got.append(await server.run(command, data=data))

    with_server(program, work)
    return got[0]


def processes_with(text: str) -> list[int]:
    """The processes of this host whose command line has this text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text in path.read_bytes().decode("utf-8", "replace"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("echo out; echo err >&2; exit 3", CommandOutcome(3, b"out\n", b"err\n")),
        (("printf", r"%s\0", "a b", "", "'"), CommandOutcome(0, b"a b\0\0'\0", b"")),
        ("kill -TERM $$", CommandOutcome(128 + signal.SIGTERM, b"", b"")),
        ("exit 255", CommandOutcome(255, b"", b"")),
        (("nosuch",), CommandOutcome(127, b"", b"nosuch: No such file or directory\n")),
        (("/no/such",), CommandOutcome(127, b"", b"/no/such: No such file or directory\n")),
        (("/etc/passwd",), CommandOutcome(126, b"", b"/etc/passwd: Permission denied\n")),
        (("/usr",), CommandOutcome(126, b"", b"/usr: Permission denied\n")),
        (("x" * 300,), CommandOutcome(126, b"", b"x" * 300 + b": File name too long\n")),
        (("cat",), CommandOutcome(0, b"", b"")),
    ],
)
def test_outcomes(program: Path, command: str | tuple[str, ...], expected: CommandOutcome) -> None:
    assert outcome(program, command) == expected


def test_environment_directory_and_what_a_command_has_open(program: Path) -> None:
    done = outcome(program, ("env",))
    assert set(done.stdout.decode().split()) == {f"{name}={value}" for name, value in ENVIRONMENT.items()}
    assert outcome(program, ("pwd",)).stdout == b"/\n"
    listed = outcome(program, ("ls", "-l", "/proc/self/fd")).stdout.decode().splitlines()
    opened = [line.split(" -> ")[0].split()[-1] for line in listed[1:]]
    assert opened == ["0", "1", "2", "3"], f"3 is what ls has open itself: {listed}"
    status = outcome(program, ("cat", "/proc/self/status")).stdout.decode()
    for name in ("SigBlk", "SigIgn"):
        assert f"{name}:\t{0:016x}" in status, f"not every signal is as it should be: {status}"
    session = outcome(program, "cut -d' ' -f1,5,6 /proc/self/stat; echo $$").stdout.split()
    assert session[1] == session[2] == session[3], "the command does not lead a session"


def test_a_script_without_a_first_line(program: Path, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('echo "$0" "$@"\n')
    script.chmod(0o755)
    assert outcome(program, (str(script), "a", "b")).stdout.decode() == f"{script} a b\n"


def test_environment_and_directory_that_are_asked_for(program: Path) -> None:
    async def work(server: Server) -> None:
        request = CommandRequest("echo $X; pwd; ps -o pid=,sid= -p $$", env={"X": "a'b"}, cwd="/usr")
        done = await server.port.run(request, Deadline(60))
        lines = done.stdout.decode().split()
        assert lines[:2] == ["a'b", "/usr"]
        assert lines[2] == lines[3], "the command does not lead a session"

    with_server(program, work)


@pytest.mark.parametrize("size", [1, 16384, 16385, 65536, 65537, 10_000_000])
def test_all_bytes_come_back(program: Path, size: int) -> None:
    data = os.urandom(size)
    assert outcome(program, ("cat",), data) == CommandOutcome(0, data, b"")


def test_much_output_on_both_sides(program: Path) -> None:
    done = outcome(program, "head -c 5000000 /dev/zero & head -c 5000000 /dev/zero >&2; wait")
    assert (len(done.stdout), len(done.stderr)) == (5_000_000, 5_000_000)


def test_input_that_nobody_reads(program: Path) -> None:
    assert outcome(program, ("true",), os.urandom(3_000_000)) == CommandOutcome(0, b"", b"")
    assert outcome(program, "head -c 3", b"abc" * 1_000_000) == CommandOutcome(0, b"abc", b"")
    assert outcome(program, "exec <&-; sleep 0.3; echo on", b"x" * 1_000_000).stdout == b"on\n"


def test_more_output_than_is_kept(program: Path) -> None:
    with pytest.raises(ChannelError, match="more than the guest agent keeps"):
        outcome(program, "head -c 17000000 /dev/zero")


def test_long_arguments(program: Path) -> None:
    words = tuple("x" * 900 + str(number) for number in range(100))
    assert outcome(program, ("printf", "%s\n", *words)).stdout.decode().split() == list(words)
    many = ("sh", "-c", "echo $#", *["a"] * 30_000)
    assert outcome(program, many).stdout == b"29999\n"


def test_too_many_arguments_are_refused(program: Path) -> None:
    request = CommandRequest(("echo", *["a"] * 40_000))

    async def work(server: Server) -> None:
        assert not server.port.takes(request)
        done = await server.port.run(request, Deadline(60))
        assert (done.returncode, done.stderr) == (126, b"echo: Argument list too long\n")
        assert await server.run("echo on") == CommandOutcome(0, b"on\n", b"")

    with_server(program, work)


def test_commands_at_once_do_not_mix(program: Path) -> None:
    async def work(server: Server) -> None:
        async def one(number: int) -> None:
            data = os.urandom(100_000 + number)
            done = await server.run(f"sleep 0.{number % 3}; cat; echo {number} >&2", data=data)
            assert done == CommandOutcome(0, data, f"{number}\n".encode())

        await asyncio.gather(*(one(number) for number in range(SLOTS)))

    with_server(program, work)


def test_the_first_commands_at_once_greet_once(program: Path) -> None:
    async def work(server: Server) -> None:
        async def one(number: int) -> None:
            await server.port.connect(Deadline(60))
            assert (await server.run(f"sleep 0.2; echo {number}")).stdout == f"{number}\n".encode()

        await asyncio.gather(*(one(number) for number in range(8)))

    with_server(program, work, greet=False)


def test_a_flood_is_ended_in_time_and_holds_up_nobody(program: Path) -> None:
    async def work(server: Server) -> None:
        floods = [asyncio.ensure_future(server.run("yes", 1.5)) for _ in range(3)]
        await asyncio.sleep(0.2)
        assert (await server.run("echo on")).stdout == b"on\n"
        for flood in floods:
            with pytest.raises(CommandTimeout, match="children were ended"):
                await flood
        assert (await server.run("echo on")).stdout == b"on\n"

    with_server(program, work)


def test_a_command_that_is_one_too_many_is_told(program: Path) -> None:
    async def work(server: Server) -> None:
        sleeping = [asyncio.ensure_future(server.run("cat; sleep 1")) for _ in range(SLOTS)]
        await asyncio.sleep(0)
        assert not server.port.takes(CommandRequest("true"))
        assert (await server.run("true")).returncode == 126
        await asyncio.gather(*sleeping)

    with_server(program, work)


def test_many_short_commands(program: Path) -> None:
    async def work(server: Server) -> None:
        for number in range(300):
            assert await server.run(f"echo {number}") == CommandOutcome(0, f"{number}\n".encode(), b"")
        opened = list(Path(f"/proc/{server.process.pid}/fd").iterdir())
        assert len(opened) == 6, f"descriptors were left open: {opened}"
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
        assert children == "", f"children were left: {children}"

    with_server(program, work)


def test_a_command_is_over_when_its_outputs_are_closed(program: Path) -> None:
    async def work(server: Server) -> None:
        assert (await server.run("(sleep 0.5; echo late) &")).stdout == b"late\n"
        assert (await server.run("sleep 30 >/dev/null 2>&1 & echo now $!")).stdout.startswith(b"now")

    with_server(program, work)


def test_a_slow_command_does_not_hold_up_others(program: Path) -> None:
    async def work(server: Server) -> None:
        slow = asyncio.ensure_future(server.run("sleep 2; cat", data=b"x" * 500_000))
        await asyncio.sleep(0.1)
        assert (await server.run("echo quick", data=b"y" * 300_000)).stdout == b"quick\n"
        assert not slow.done(), "the quick command had to wait for the slow one"
        assert len((await slow).stdout) == 500_000

    with_server(program, work)


def test_a_late_command_and_all_its_children_are_ended(program: Path) -> None:
    mark = f"4711.{os.getpid()}{time.time_ns() % 1000}"

    async def work(server: Server) -> None:
        with pytest.raises(CommandTimeout, match="children were ended") as caught:
            await server.run(f"echo partly; sleep {mark} & (setsid sleep {mark}) & sleep {mark}", 0.5)
        assert caught.value.stdout == "partly\n"
        assert processes_with(mark) == [], "children were left"
        assert await server.run("echo on") == CommandOutcome(0, b"on\n", b"")

    with_server(program, work)


def test_a_cancelled_command_is_ended(program: Path) -> None:
    mark = f"4712.{os.getpid()}{time.time_ns() % 1000}"

    async def work(server: Server) -> None:
        running = asyncio.ensure_future(server.run(f"sleep {mark}; echo no"))
        await asyncio.sleep(0.3)
        assert processes_with(mark)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        async with asyncio.timeout(30):
            while processes_with(mark):
                await asyncio.sleep(0.02)
        assert await server.run("echo on") == CommandOutcome(0, b"on\n", b"")

    with_server(program, work)
