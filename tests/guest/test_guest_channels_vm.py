"""Both channels into a real machine."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time

import pytest
from vm_rig import machine, needs_qemu

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError, CommandTimeout, MaqetError
from pytest_maqet.guest.channel import pick
from pytest_maqet.guest.commands import CommandRequest
from pytest_maqet.guest.remote_process import start_process
from pytest_maqet.loop import lease_loop, release_loop

pytestmark = [needs_qemu, pytest.mark.slow]


@pytest.fixture(scope="module")
def vm():
    """`vm(coroutine function)` runs it with a machine that the whole module shares."""
    loop = lease_loop()
    stack = contextlib.AsyncExitStack()
    try:
        shared = loop.run(stack.enter_async_context(machine()))
        loop.run(shared.ready())
        yield lambda work: loop.run(work(shared))
        loop.run(stack.aclose())
    finally:
        release_loop(loop)


@pytest.fixture(params=["agent", "shell"])
def on(request, vm):
    """`on(coroutine function)` runs it with one of the machine's channels."""

    def run(work):
        async def with_channel(shared):
            return await work(getattr(shared, request.param))

        return vm(with_channel)

    return run


def command(text, **keywords):
    return CommandRequest.of(text, **keywords)


def test_status_and_outputs(on):
    async def work(channel):
        await channel.probe(Deadline(60))
        return await channel.run(command("uname -s; echo err >&2; exit 3"), Deadline(60))

    outcome = on(work)
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (3, b"Linux\n", b"err\n")


@pytest.mark.parametrize(("name", "status"), [("KILL", 137), ("INT", 130)])
def test_death_by_a_signal(on, name, status):
    async def work(channel):
        return await channel.run(command(f"kill -{name} $$"), Deadline(60))

    assert on(work).returncode == status


def test_binary_input_and_output(on):
    data = bytes(range(256)) * 80

    async def work(channel):
        return await channel.run(command("tee /proc/self/fd/2", input=data), Deadline(60))

    outcome = on(work)
    assert outcome.stdout == data
    assert outcome.stderr == data


def test_ten_megabytes_of_output(on):
    async def work(channel):
        return await channel.run(command("yes 'all work and no play' | head -c 10485760"), Deadline(120))

    line = b"all work and no play\n"
    assert on(work).stdout == (line * (10485760 // len(line) + 1))[:10485760]


def test_a_timeout_ends_the_command_and_its_children(on):
    async def work(channel):
        with pytest.raises(CommandTimeout) as caught:
            await channel.run(command("echo begun; sleep 4711 & setsid sleep 4711 & sleep 4711"), Deadline(3))
        left = await channel.run(command("ps | grep 'sleep 471[1]'"), Deadline(60))
        return caught.value, left

    error, left = on(work)
    assert error.stdout == "begun\n"
    assert left.stdout == b"", "children of the command still run"


def test_a_spawned_command(on):
    async def work(channel):
        deadline = Deadline(60)
        process = await start_process(
            channel, command("cat; exec sleep 4711", input="hello\n"), deadline, "web"
        )
        while (await process.output(deadline))[0] != b"hello\n":
            await asyncio.sleep(0.05)
        await process.signal(signal.SIGTERM, deadline)
        status = await process.wait(deadline)
        await process.forget(deadline)
        return status, await process.output(deadline)

    assert on(work) == (143, (b"hello\n", b""))


def test_a_talking_kernel_does_not_spoil_the_console(vm):
    """Messages on the console while a command's output is on its way there."""
    chatter = "while :; do echo '<1>a word of the kernel' >/dev/kmsg; usleep 3000; done"

    async def work(shared):
        deadline = Deadline(120)
        before = shared.log.text().count("a word of the kernel")
        process = await start_process(shared.agent, command(chatter), deadline, "web")
        outcome = await shared.shell.run(
            command("head -c 30000 /dev/urandom | tee /proc/self/fd/2"), deadline
        )
        await process.signal(signal.SIGKILL, deadline)
        await process.wait(deadline)
        await process.forget(deadline)
        return outcome, shared.log.text().count("a word of the kernel") - before

    outcome, words = vm(work)
    assert words > 5, "the kernel did not speak on the console, so nothing was tried"
    assert len(outcome.stdout) == 30000
    assert outcome.stdout == outcome.stderr


def test_the_log_has_each_character_once(vm):
    """QEMU logs a character twice when a connected client does not keep up."""

    async def work(shared):
        deadline = Deadline(60)
        await shared.shell.run(command("true"), deadline)
        start = shared.log.end
        await shared.line.send(b"seq 100000 102000\n")
        while "\n102000\n" not in shared.log.text(start):
            await shared.changed.wait()
        return shared.log.text(start)

    text = vm(work)
    expected = "".join(f"{number}\n" for number in range(100000, 102001))
    assert expected in text


def test_the_agent_is_preferred_and_the_console_is_there_without_it(vm):
    async def work(shared):
        first = await pick([shared.agent, shared.shell], Deadline(60))
        await shared.shell.run(command("killall qemu-ga; sleep 0.2"), Deadline(60))
        started = time.monotonic()
        await shared.agent.close()
        second = await pick([shared.agent, shared.shell], Deadline(60))
        return first.name, second.name, time.monotonic() - started

    first, second, seconds = vm(work)
    assert first == "agent"
    assert second in ("console", "agent"), "an init that restarts the agent is fine, too"
    assert seconds < 30


def test_both_channels_come_back_after_a_reboot(vm):
    async def work(shared):
        deadline = Deadline(180)
        boots = shared.log.text().count("guest ready")
        running = asyncio.ensure_future(shared.shell.run(command("sleep 4711"), Deadline(60)))
        await asyncio.sleep(1.5)
        await shared.line.send(b"\x15reboot -f\n")
        await shared.ready(boots + 1)
        outcome = await shared.shell.run(command("echo console"), deadline)
        with contextlib.suppress(MaqetError):
            await running
        assert running.done()
        assert isinstance(running.exception(), ChannelError), f"told as {running.exception()!r}"
        await shared.agent.probe(deadline)
        answer = await shared.agent.run(command("echo agent"), deadline)
        return outcome.stdout, answer.stdout

    assert vm(work) == (b"console\n", b"agent\n")
