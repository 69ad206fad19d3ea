"""The blocking handle of a serial port, and prompts that are no POSIX shell's."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys

import pytest
from serial_rig import SHELLS, serial_rig

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError, CommandError, CommandTimeout
from pytest_maqet.guest.commands import CommandRequest, CompletedCommand
from pytest_maqet.guest.console import Console
from pytest_maqet.guest.serial_port import SerialPort
from pytest_maqet.loop import lease_loop, release_loop

#: Something like a boot loader: its own prompt, no status but by a command, carriage return ends a line.
LOADER = r"""
import os, sys, termios, time
modes = termios.tcgetattr(0)
modes[0] &= ~termios.ICRNL
modes[3] &= ~termios.ICANON
termios.tcsetattr(0, termios.TCSANOW, modes)
status = 0
def say(text):
    os.write(1, text.encode())
while True:
    say("=> ")
    line = b""
    while not line.endswith(b"\r"):
        line += os.read(0, 1)
    say("\n")
    line = line[:-1].decode()
    if line == "status":
        say(f"{status}\n")
        continue
    status = 0
    if line.startswith("echo "):
        say(line[5:] + "\n")
    elif line == "noise":
        say("a => b\nc => \nd\n")
    elif line == "hang":
        time.sleep(60)
    elif line == "":
        say("last command again\n")
    else:
        say(f"Unknown command '{line}'\n")
        status = 1
"""
PROGRAM = [sys.executable, "-c", LOADER]


class Owner:
    """What a VM's handle does for its consoles."""

    def __init__(self, loop, rig):
        self._loop = loop
        self._rig = rig

    def call(self, work, _deadline, *, grace=0.0):
        return self._loop.run(work)

    def command_deadline(self, timeout):
        return Deadline(20.0 if timeout is None else timeout)

    def console_position(self, name, since):
        return {"start": 0, "now": self._rig.log.end}[since]

    def expect_on_console(self, name, pattern, *, timeout, since):
        async def found():
            while not (match := re.search(pattern, self._rig.log.text())):
                await self._rig.changed.wait()
            return match

        return self._loop.run(found())

    def run_on_console(self, name, command, *, check, timeout, **request):
        asked = CommandRequest.of(command, **request)
        outcome = self._loop.run(self._rig.shell.run(asked, self.command_deadline(timeout)))
        result = CompletedCommand.from_outcome(asked, outcome, duration=0)
        if check:
            result.check("web")
        return result


@pytest.fixture
def console():
    """`console(program)` → a Console of that program's terminal."""
    loop = lease_loop()
    stack = contextlib.AsyncExitStack()

    def make(program):
        async def serial():
            rig = await stack.enter_async_context(serial_rig(program))
            port = SerialPort("main", rig.log, rig.line, rig.changed, rig.shell.typing, "web")
            return rig, port

        rig, port = loop.run(serial())
        return Console(port, Owner(loop, rig))

    try:
        yield make
        loop.run(stack.aclose())
    finally:
        release_loop(loop)


@pytest.fixture
def loader(console):
    return console(PROGRAM).shell(prompt="=> ", status="status", eol="\r")


def test_typing_expecting_and_reading(console):
    main = console(SHELLS["dash"])
    main.send("echo typed $((40+2))\n")
    assert main.expect(r"typed (\d+)\n").group(1) == "42"
    assert "typed 42" in main.text()
    assert "typed 42" in main.path.read_text()
    assert main.name == "main"
    assert "main of web" in repr(main)


def test_shell_commands_on_the_console(console):
    main = console(SHELLS["dash"])
    assert main.run("echo out; echo err >&2").stdout == "out\n"
    assert main.run(["cat"], input=b"\xff", encoding=None).stdout == b"\xff"
    with pytest.raises(CommandError, match="status 3"):
        main.run("exit 3")


def test_a_command_at_a_foreign_prompt(loader):
    result = loader.run("echo hello")
    assert (result.stdout, result.returncode) == ("hello\n", 0)
    assert loader.run("echo again").stdout == "again\n"


def test_the_status_command_tells_failures(loader):
    with pytest.raises(CommandError, match="Unknown command 'nonsense'"):
        loader.run("nonsense")
    assert loader.run("nonsense", check=False).returncode == 1


def test_output_that_looks_like_a_prompt_in_passing(loader):
    assert loader.run("noise").stdout == "a => b\nc => \nd\n"


def test_no_empty_line_is_typed_where_a_prompt_waits(loader):
    loader.run("echo one")
    assert "again" not in loader.run("echo two").stdout, "an empty line repeats a boot loader's last command"


def test_a_prompt_that_does_not_come_back(loader):
    with pytest.raises(CommandTimeout, match=r"did not come back within 3 s after 'hang'"):
        loader.run("hang", timeout=3)


def test_no_prompt_to_begin_with(console):
    shell = console(["sleep", "60"]).shell(prompt="=> ")
    with pytest.raises(ChannelError, match="no prompt"):
        shell.run("echo", timeout=0.5)


@pytest.mark.parametrize("command", ["two\nlines", "a\rb"])
def test_several_lines_are_refused(loader, command):
    with pytest.raises(ValueError, match="one line at a time"):
        loader.run(command)


def test_a_status_command_that_prints_no_number(console):
    shell = console(PROGRAM).shell(prompt="=> ", status="echo fine", eol="\r")
    with pytest.raises(ChannelError, match="printed no number, but 'fine'"):
        shell.run("echo x")


def test_qemu_gone_is_a_channel_error(console):
    main = console(SHELLS["dash"])
    main.path.with_name("line").unlink()
    with pytest.raises(ChannelError, match="cannot write to the serial line"):
        main.send("x\n")


def test_typing_waits_for_what_belongs_together():
    async def run():
        async with serial_rig(SHELLS["dash"]) as rig:
            port = SerialPort("main", rig.log, rig.line, rig.changed, rig.shell.typing, "web")
            async with rig.shell.typing:
                task = asyncio.ensure_future(port.type(b"echo late\n", Deadline.after(30)))
                await asyncio.sleep(0.1)
                assert "late" not in rig.log.text(), "it typed into somebody else's conversation"
            await task

    asyncio.run(run())
