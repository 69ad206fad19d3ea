"""Commands over a serial line: three shells on a pseudo-terminal, with and without a kernel that talks."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path

import pytest
from serial_rig import SHELLS, Access, Step, serial_rig

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError, CommandTimeout
from pytest_maqet.guest.commands import CommandRequest
from pytest_maqet.guest.serial_frames import hide_traffic

SLEEP = f"sleep 472.{os.getpid()}"


@pytest.fixture(params=sorted(SHELLS))
def shell(request):
    program = SHELLS[request.param]
    if shutil.which(program[0]) is None:
        pytest.skip(f"{program[0]} is not installed")
    return program


@pytest.fixture(params=[0.0, 0.3], ids=["quiet", "noisy"])
def noise(request):
    return request.param


def on(program, *requests, timeout=30.0, **keywords):
    """The outcomes of these commands, one after the other."""

    async def run():
        async with serial_rig(program, **keywords) as rig:
            await rig.shell.probe(Deadline(timeout))
            return [await rig.shell.run(request, Deadline(timeout)) for request in requests]

    return asyncio.run(run())


def running(word):
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.replace(" ", "\0").encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


async def gone(word):
    deadline = Deadline(5)
    while running(word) and not deadline.expired:
        await asyncio.sleep(0.02)
    return not running(word)


def test_outputs_apart_with_the_status(shell, noise):
    (outcome,) = on(shell, CommandRequest.of("echo out; echo err >&2; exit 3"), noise=noise)
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (3, b"out\n", b"err\n")


def test_arguments_environment_and_directory_are_passed_as_they_are(shell):
    words = ["printf", "%s|", "a b", "$HOME", "'", '"', "*", "é\n", "-x", "", "~", "!!", "\x03\x04"]
    printed, place = on(
        shell,
        CommandRequest.of(words),
        CommandRequest.of('pwd; printf %s "$A"', cwd="/usr", env={"A": "it's\n$(x)"}),
    )
    assert printed.stdout.decode() == "".join(f"{word}|" for word in words[2:])
    assert place.stdout == b"/usr\nit's\n$(x)"


def test_every_byte_value_survives_in_and_out(shell, noise):
    data = bytes(range(256)) * 40
    (outcome,) = on(shell, CommandRequest.of("tee /dev/stderr", input=data), noise=noise)
    assert outcome.stdout == data
    assert outcome.stderr == data


def test_no_input_is_an_empty_one(shell):
    for request in (CommandRequest.of("cat"), CommandRequest.of("cat", input=b"")):
        assert on(shell, request)[0].stdout == b""


@pytest.mark.parametrize(("signal", "status"), [("KILL", 137), ("TERM", 143), ("INT", 130)])
def test_death_by_a_signal_is_128_and_its_number(shell, signal, status):
    (outcome,) = on(shell, CommandRequest.of(f"kill -{signal} $$"))
    assert (outcome.returncode, outcome.stderr) == (status, b""), "the helper's shell must add no words"


def test_a_missing_program_is_status_127_with_the_reason(shell):
    (outcome,) = on(shell, CommandRequest.of(["no-such-program"]))
    assert outcome.returncode == 127
    assert b"no-such-program" in outcome.stderr


def test_a_megabyte_each_way(shell, noise):
    data = os.urandom(1024 * 1024)
    (outcome,) = on(shell, CommandRequest.of("cat", input=data), noise=noise, timeout=90)
    assert outcome.stdout == data


def test_ten_megabytes_of_output():
    line = b"all work and no play makes jack a dull boy\n"
    count = 10 * 1024 * 1024 // len(line)
    request = CommandRequest.of(["sh", "-c", f"yes '{line.decode().strip()}' | head -n {count}"])
    (outcome,) = on(SHELLS["dash"], request, timeout=90)
    assert outcome.stdout == line * count


def test_a_command_that_is_too_long_to_be_typed(shell):
    text = "é" * 20_000
    (outcome,) = on(shell, CommandRequest.of(["printf", "%s", text]))
    assert outcome.stdout.decode() == text


def test_a_timeout_ends_the_command_with_its_children_and_tells_what_it_printed(shell):
    async def run():
        async with serial_rig(shell) as rig:
            await rig.shell.probe(Deadline(20))
            request = CommandRequest.of(f"echo begun; {SLEEP} & setsid {SLEEP} & {SLEEP}")
            with pytest.raises(CommandTimeout) as caught:
                await rig.shell.run(request, Deadline(0.5))
            assert caught.value.stdout == "begun\n"
            assert await gone(SLEEP), "children of the command still run"
            again = await rig.shell.run(CommandRequest.of("echo works"), Deadline(10))
            assert again.stdout == b"works\n", "the channel must work after a time-out"

    asyncio.run(run())


def test_a_cancelled_command_is_ended_and_the_channel_works(shell):
    async def run():
        async with serial_rig(shell) as rig:
            await rig.shell.probe(Deadline(20))
            task = asyncio.ensure_future(rig.shell.run(CommandRequest.of(SLEEP), Deadline(60)))
            while not running(SLEEP):
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await rig.shell.run(CommandRequest.of("echo works"), Deadline(10))).stdout == b"works\n"
            assert await gone(SLEEP), "the cancelled command still runs"

    asyncio.run(run())


def test_a_transfer_cancelled_in_the_middle_leaves_a_working_channel():
    async def run():
        async with serial_rig(SHELLS["dash"]) as rig:
            await rig.shell.probe(Deadline(20))
            request = CommandRequest.of("cat", input=os.urandom(3_000_000))
            task = asyncio.ensure_future(rig.shell.run(request, Deadline(60)))
            await asyncio.sleep(0.3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            outcome = await rig.shell.run(CommandRequest.of("echo works"), Deadline(20))
            assert outcome.stdout == b"works\n"

    asyncio.run(run())


def test_commands_run_side_by_side(shell):
    async def run():
        async with serial_rig(shell) as rig:
            await rig.shell.probe(Deadline(20))
            started = time.monotonic()
            requests = [CommandRequest.of(f"sleep 1; echo {number}") for number in range(5)]
            outcomes = await asyncio.gather(*(rig.shell.run(each, Deadline(20)) for each in requests))
            assert [outcome.stdout for outcome in outcomes] == [b"%d\n" % number for number in range(5)]
            assert time.monotonic() - started < 4, "five commands of a second ran one after the other"

    asyncio.run(run())


def test_half_a_line_at_the_prompt_does_not_spoil_a_command(shell):
    async def run():
        async with serial_rig(shell) as rig:
            await rig.line.send(b"echo half a li")
            outcome = await rig.shell.run(CommandRequest.of("echo works"), Deadline(20))
            assert outcome.stdout == b"works\n"

    asyncio.run(run())


LOGIN = r"""
while :; do
  printf 'Welcome\r\nhost login: '; read -r user || exit
  [ "$user" ] || continue
  stty -echo; printf 'Password: '; read -r secret; stty echo; echo
  [ "$user:$secret" = "tester:sesame" ] && exec sh -i
  sleep 0.2; echo 'Login incorrect'
done
"""


def test_logs_in_with_the_password_from_the_environment(monkeypatch):
    monkeypatch.setenv("GUEST_PASSWORD", "sesame")
    access = Access(user="tester", password_env="GUEST_PASSWORD")
    (outcome,) = on(["sh", "-c", LOGIN], CommandRequest.of("echo in"), access=access)
    assert outcome.stdout == b"in\n"


def test_logs_in_by_steps(monkeypatch):
    monkeypatch.setenv("GUEST_PASSWORD", "sesame")
    steps = [Step("login: $", send="tester"), Step("Password", send_env="GUEST_PASSWORD")]
    (outcome,) = on(["sh", "-c", LOGIN], CommandRequest.of("echo in"), access=Access(login=steps))
    assert outcome.stdout == b"in\n"


def test_a_password_that_is_not_set_is_said_by_its_name(monkeypatch):
    monkeypatch.delenv("GUEST_PASSWORD", raising=False)
    access = Access(user="tester", password_env="GUEST_PASSWORD")
    with pytest.raises(ChannelError, match="GUEST_PASSWORD, which is not set"):
        on(["sh", "-c", LOGIN], CommandRequest.of("true"), access=access)


def test_a_login_that_nobody_described_is_shown_and_nothing_is_typed_at_it():
    async def run():
        async with serial_rig(["sh", "-c", LOGIN]) as rig:
            while "login:" not in rig.log.text():
                await rig.changed.wait()
            with pytest.raises(ChannelError) as caught:
                await rig.shell.probe(Deadline(1))
            assert "host login:" in str(caught.value)
            assert "how to log in" in str(caught.value)
            assert "Password" not in rig.log.text(), "a line for the shell was typed as a user's name"

    asyncio.run(run())


@pytest.mark.parametrize("program", [["cat"], ["sleep", "60"]])
def test_a_line_without_a_shell_ends_at_the_deadline(program):
    async def run():
        async with serial_rig(program) as rig:
            started = time.monotonic()
            with pytest.raises(ChannelError, match="no shell answered on the serial console within 1 s"):
                await rig.shell.probe(Deadline(1))
            assert time.monotonic() - started < 2.5

    asyncio.run(run())


def test_a_guest_without_base64_is_told(tmp_path):
    for name in ("sh", "mkdir", "sleep"):
        (tmp_path / name).symlink_to(shutil.which(name))
    program = ["env", f"PATH={tmp_path}", "/bin/dash", "-i"]
    with pytest.raises(ChannelError, match="no base64"):
        on(program, CommandRequest.of("true"))


def test_a_restart_of_the_guest_under_a_command_is_told_and_the_next_command_works():
    async def run():
        async with serial_rig(SHELLS["dash"]) as rig:
            await rig.shell.probe(Deadline(20))
            task = asyncio.ensure_future(rig.shell.run(CommandRequest.of(SLEEP), Deadline(30)))
            while not running(SLEEP):
                await asyncio.sleep(0.01)
            await asyncio.sleep(1.5)  # until the helper has been asked once and has said "running"
            for job in Path("/dev/shm").glob(".maqet-*/*/job"):
                if SLEEP in job.read_text():
                    shutil.rmtree(job.parent)
            with pytest.raises(ChannelError, match="forgotten"):
                await task
            outcome = await rig.shell.run(CommandRequest.of("echo works"), Deadline(20))
            assert outcome.stdout == b"works\n"
        for process in running(SLEEP):
            os.kill(int(process), 9)

    asyncio.run(run())


def test_people_can_be_shown_the_console_without_the_traffic():
    async def run():
        async with serial_rig(SHELLS["dash"]) as rig:
            rig.pty.say(b"[    1.000000] a word of the kernel\r\n")
            await rig.shell.run(CommandRequest.of("head -c 5000 /dev/urandom"), Deadline(20))
            await rig.line.send(b"echo typed by hand\n")
            async with asyncio.timeout(20):
                while rig.log.text().count("typed by hand\n") < 2:  # the echo and the output
                    await rig.changed.wait()
            shown = hide_traffic(rig.log.text())
            assert "a word of the kernel" in shown
            assert shown.count("typed by hand\n") == 2
            assert "~m" not in shown
            assert len(shown) < 400, f"too much of the traffic is left:\n{shown}"

    asyncio.run(run())
