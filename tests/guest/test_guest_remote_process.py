"""Commands that go on in the guest, over both channels."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import time

import pytest
from agent_rig import AGENT, agent_channel
from serial_rig import SHELLS, serial_rig

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import CommandTimeout
from pytest_maqet.guest.commands import CommandRequest
from pytest_maqet.guest.guest_process import GuestProcess
from pytest_maqet.guest.remote_process import start_process
from pytest_maqet.loop import lease_loop, release_loop


@contextlib.asynccontextmanager
async def over(name):
    if name == "agent":
        if AGENT is None:
            pytest.skip("qemu-ga is not installed (qemu-guest-agent)")
        async with agent_channel() as channel:
            yield channel
    else:
        async with serial_rig(SHELLS[name]) as rig:
            yield rig.shell


@pytest.fixture(params=["agent", "dash", "ash"])
def channel_name(request):
    if request.param == "ash" and shutil.which("busybox") is None:
        pytest.skip("busybox is not installed")
    return request.param


async def spawn(channel, command, **keywords):
    return await start_process(channel, CommandRequest.of(command, **keywords), Deadline(20), "web")


def test_output_can_be_read_while_it_runs_and_a_signal_ends_it(channel_name):
    async def run():
        async with over(channel_name) as channel:
            command = "trap 'echo bye; exit 5' TERM; cat; echo err >&2; while :; do sleep 0.05; done"
            process = await spawn(channel, command, input="hello\n")
            deadline = Deadline(20)
            while await process.output(deadline) != (b"hello\n", b"err\n"):
                await asyncio.sleep(0.02)
            assert await process.poll(deadline) is None
            with pytest.raises(TimeoutError):
                await process.wait(Deadline(0.3))
            await process.signal(signal.SIGTERM, deadline)
            assert await process.wait(deadline) == 5
            assert (await process.output(deadline))[0] == b"hello\nbye\n"
            await process.forget(deadline)
            await process.forget(deadline)
            assert (await process.output(deadline))[0] == b"hello\nbye\n", "output stays readable"

    asyncio.run(run())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, 137), (signal.SIGINT, 130)])
def test_death_by_a_signal(channel_name, number, status):
    async def run():
        async with over(channel_name) as channel:
            process = await spawn(channel, ["sleep", "60"])
            await process.signal(number, Deadline(20))
            assert await process.wait(Deadline(20)) == status
            await process.signal(number, Deadline(20))  # to one that has ended: nothing
            await process.forget(Deadline(20))

    asyncio.run(run())


def test_much_output_and_the_status(channel_name):
    async def run():
        async with over(channel_name) as channel:
            process = await spawn(channel, "head -c 9000000 /dev/zero; exit 4")
            assert await process.wait(Deadline(60)) == 4
            assert (await process.output(Deadline(60)))[0] == bytes(9_000_000)
            await process.forget(Deadline(20))

    asyncio.run(run())


def test_a_program_that_is_not_there(channel_name):
    async def run():
        async with over(channel_name) as channel:
            process = await spawn(channel, ["no-such-program"])
            assert await process.wait(Deadline(20)) == 127
            assert b"no-such-program" in (await process.output(Deadline(20)))[1]
            await process.forget(Deadline(20))

    asyncio.run(run())


class Blocking:
    """What a VM's handle does for its processes."""

    def __init__(self, loop):
        self._loop = loop

    def call(self, work, _deadline):
        return self._loop.run(work)

    def command_deadline(self, timeout):
        return Deadline(20.0 if timeout is None else timeout)


@pytest.fixture
def spawned(channel_name):
    """Spawns over a channel that lives on the loop thread: `spawned(command)` → GuestProcess."""
    loop = lease_loop()
    stack = contextlib.AsyncExitStack()
    try:
        channel = loop.run(stack.enter_async_context(over(channel_name)))
        caller = Blocking(loop)
        yield lambda command, **keywords: GuestProcess(loop.run(spawn(channel, command, **keywords)), caller)
        loop.run(stack.aclose())
    finally:
        release_loop(loop)


def test_the_handle_ends_its_command_when_its_block_is_left(spawned):
    with spawned("echo begun; while :; do sleep 0.05; done") as process:
        deadline = Deadline(20)
        while process.stdout != "begun\n" and not deadline.expired:
            time.sleep(0.02)
        assert process.returncode is None
        assert process.pid > 0
        assert "running" in repr(process)
    assert process.returncode == 143
    assert process.stdout == "begun\n", "output stays readable after the block"


def test_a_command_that_ignores_sigterm_is_killed(spawned):
    with spawned("trap '' TERM; while :; do sleep 0.05; done") as process:
        pass
    assert process.returncode == 137


def test_the_handle_waits_and_tells_a_timeout(spawned):
    with spawned(["cat"], input=b"\xff", encoding=None) as quick:
        assert quick.wait() == 0
        assert quick.stdout == b"\xff"
    with spawned("echo begun; exec sleep 60") as slow:
        with pytest.raises(CommandTimeout, match="may still run") as caught:
            slow.wait(timeout=0.5)
        assert caught.value.stdout == "begun\n"
        slow.kill()
        assert slow.wait() == 137
