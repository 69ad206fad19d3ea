"""Commands over the guest agent: the real one, run on this host."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from pathlib import Path

import pytest
from agent_rig import agent_channel, needs_agent, pretended_agent, running_agent

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError, CommandTimeout
from pytest_maqet.guest.agent import AgentChannel
from pytest_maqet.guest.commands import CommandRequest

pytestmark = needs_agent

#: A command that no other test run on this host runs.
SLEEP = f"sleep 471.{os.getpid()}"


def once(request, timeout=20.0):
    """The outcome of one command over a fresh channel."""

    async def run():
        async with agent_channel() as channel:
            return await channel.run(request, Deadline(timeout))

    return asyncio.run(run())


def processes_with(word):
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def test_an_answering_agent_passes_the_probe():
    async def run():
        async with agent_channel() as channel:
            await channel.probe(Deadline(10))

    asyncio.run(run())


def test_outputs_come_back_apart_with_the_status():
    outcome = once(CommandRequest.of("echo out; echo err >&2; exit 3"))
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (3, b"out\n", b"err\n")


def test_arguments_are_passed_as_they_are():
    words = ["printf", "%s|", "a b", "$HOME", "'", '"', "*", "é\n", "-x", ""]
    assert once(CommandRequest.of(words)).stdout.decode() == "".join(f"{word}|" for word in words[2:])


def test_every_byte_value_survives_in_and_out():
    data = bytes(range(256)) * 50
    assert once(CommandRequest.of("cat; cat /dev/null >&2", input=data)).stdout == data


def test_environment_and_directory():
    request = CommandRequest.of('pwd; printf %s "$A"', cwd="/usr", env={"A": "it's\n$(x)"})
    assert once(request).stdout == b"/usr\nit's\n$(x)"


@pytest.mark.parametrize("more", [{}, {"env": {"A": "1"}}, {"cwd": "/"}], ids=["plain", "env", "cwd"])
def test_a_command_leads_a_session_of_its_own(more):
    pid, session = once(CommandRequest.of("cut -d ' ' -f 6 /proc/$$/stat; echo $$", **more)).stdout.split()
    assert pid == session


def test_a_guest_without_setsid_runs_commands_too(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # the agent inherits it

    async def run():
        async with agent_channel() as channel:
            return [await channel.run(CommandRequest.of("echo one; exit 3"), Deadline(10)) for _ in range(2)]

    assert [(one.returncode, one.stdout) for one in asyncio.run(run())] == [(3, b"one\n")] * 2


def test_a_missing_directory_or_program_is_status_127_with_the_reason():
    assert once(CommandRequest.of("true", cwd="/no/such")).returncode == 127
    missing = once(CommandRequest.of(["no-such-program"]))
    assert missing.returncode == 127
    assert b"no-such-program" in missing.stderr


@pytest.mark.parametrize(("signal", "status"), [("KILL", 137), ("TERM", 143), ("INT", 130)])
def test_death_by_a_signal_is_128_and_its_number(signal, status):
    assert once(CommandRequest.of(f"kill -{signal} $$")).returncode == status


def test_ten_megabytes_of_output():
    outcome = once(CommandRequest.of("head -c 10485760 /dev/zero"), timeout=60)
    assert outcome.stdout == bytes(10 * 1024 * 1024)


def test_megabytes_of_input_go_through_a_file_that_is_gone_afterwards():
    data = os.urandom(3 * 1024 * 1024 + 1)
    assert once(CommandRequest.of("cat", input=data), timeout=60).stdout == data
    assert not list(Path("/tmp").glob(".maqet-input-*")), "the input's file was left in the guest"


def test_output_beyond_the_agents_limit_is_told_not_cut():
    with pytest.raises(ChannelError, match="more than the guest agent keeps"):
        once(CommandRequest.of("head -c 17000000 /dev/zero"), timeout=60)


def test_a_timeout_ends_the_command_with_its_children_and_tells_what_it_printed():
    async def run():
        async with agent_channel() as channel:
            request = CommandRequest.of(f"echo begun; {SLEEP} & setsid {SLEEP} & {SLEEP}")
            with pytest.raises(CommandTimeout) as caught:
                await channel.run(request, Deadline(0.5))
            assert caught.value.stdout == "begun\n"
            assert "were ended in the guest" in str(caught.value)
            again = await channel.run(CommandRequest.of("echo works"), Deadline(10))
            assert again.stdout == b"works\n", "the channel must work after a time-out"

    asyncio.run(run())
    assert not processes_with(SLEEP.split()[1]), "children of the command still run"


def test_a_cancelled_command_is_ended_and_the_channel_works():
    async def run():
        async with agent_channel() as channel:
            await channel.probe(Deadline(10))
            task = asyncio.ensure_future(channel.run(CommandRequest.of(SLEEP), Deadline(60)))
            while not processes_with(SLEEP.split()[1]):
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await channel.run(CommandRequest.of("echo works"), Deadline(10))).stdout == b"works\n"
            deadline = Deadline(5)
            while processes_with(SLEEP.split()[1]) and not deadline.expired:
                await asyncio.sleep(0.02)
            assert not processes_with(SLEEP.split()[1]), "the cancelled command still runs"

    asyncio.run(run())


def test_commands_run_side_by_side():
    async def run():
        async with agent_channel() as channel:
            await channel.probe(Deadline(10))
            started = time.monotonic()
            requests = [CommandRequest.of(f"sleep 0.5; echo {number}") for number in range(6)]
            outcomes = await asyncio.gather(*(channel.run(each, Deadline(20)) for each in requests))
            assert [outcome.stdout for outcome in outcomes] == [b"%d\n" % number for number in range(6)]
            assert time.monotonic() - started < 2.5, "six commands of half a second ran one after the other"

    asyncio.run(run())


def test_two_channels_of_one_shared_machine_take_turns():
    async def run():
        async with agent_channel(shared=True) as first:
            second = AgentChannel(first._session.path, "web", shared=True)
            both = [
                channel.run(CommandRequest.of("sleep 0.2; echo done"), Deadline(30))
                for channel in (first, second) * 3
            ]
            assert [outcome.stdout for outcome in await asyncio.gather(*both)] == [b"done\n"] * 6
            await second.close()

    asyncio.run(run())


def test_a_forbidden_guest_exec_is_said_at_once():
    async def run():
        async with agent_channel("-b", "guest-exec") as channel:
            started = time.monotonic()
            with pytest.raises(ChannelError, match="does not allow guest-exec"):
                await channel.probe(Deadline(10))
            assert time.monotonic() - started < 5, "a certain answer must not be waited for"

    asyncio.run(run())


def test_an_agent_that_comes_late_is_found():
    async def run():
        with tempfile.TemporaryDirectory(prefix="agent") as directory:
            channel = AgentChannel(Path(directory) / "agent", "web")
            probe = asyncio.ensure_future(channel.probe(Deadline(20)))
            await asyncio.sleep(0.3)
            with running_agent(Path(directory)):
                await probe
                await channel.close()

    asyncio.run(run())


def test_an_agent_restarted_under_a_command_is_told():
    async def run():
        with tempfile.TemporaryDirectory(prefix="agent") as directory:
            channel = AgentChannel(Path(directory) / "agent", "web")
            with running_agent(Path(directory)):
                task = asyncio.ensure_future(channel.run(CommandRequest.of("sleep 5"), Deadline(20)))
                await asyncio.sleep(0.5)
            (Path(directory) / "agent").unlink()
            with running_agent(Path(directory)):
                with pytest.raises(ChannelError, match="agent"):
                    await task
                outcome = await channel.run(CommandRequest.of("echo back"), Deadline(10))
                assert outcome.stdout == b"back\n"
                await channel.close()

    asyncio.run(run())


async def silent(reader, _writer):
    await reader.read()


async def confused(reader, writer):
    while await reader.read(4096):
        writer.write(b'\x00\xff not JSON at all\n{"return": 7}\n')


@pytest.mark.parametrize("behave", [silent, confused])
def test_what_is_no_agent_ends_at_the_deadline_with_the_cause(behave):
    async def run():
        async with pretended_agent(behave) as channel:
            started = time.monotonic()
            with pytest.raises(ChannelError, match="did not answer within 1 s") as caught:
                await channel.probe(Deadline(1.0))
            assert time.monotonic() - started < 2
            assert "qemu-guest-agent" in str(caught.value), "the reader must learn what the guest needs"

    asyncio.run(run())


def test_no_socket_at_all():
    async def run():
        channel = AgentChannel(Path("/nonexistent/agent"), "web")
        with pytest.raises(ChannelError, match="No such file"):
            await channel.probe(Deadline(0.3))

    asyncio.run(run())


def test_nothing_of_all_this_reaches_the_users_log(caplog):
    async def run():
        async with pretended_agent(confused) as channel:
            with pytest.raises(ChannelError):
                await channel.probe(Deadline(0.5))

    with caplog.at_level(logging.DEBUG, logger="qemu"):
        asyncio.run(run())
        once(CommandRequest.of("true"))
    told = [record for record in caplog.records if record.name != "asyncio"]
    assert not told, f"log records that the user would see: {told}"
