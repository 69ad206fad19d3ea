"""Commands by maqet-exec in a real guest: what they get, and that all goes on by QEMU's agent without it."""

from __future__ import annotations

import hashlib
import os
import time

import pytest

from pytest_maqet import ChannelError, CommandTimeout, VirtualMachine
from pytest_maqet.deadline import Deadline
from pytest_maqet.guest.commands import CommandOutcome, CommandRequest
from pytest_maqet.guest.quick_agent import QuickAgent


def agent_of(vm: VirtualMachine) -> QuickAgent:
    [channel] = [channel for channel in vm.life.channels if channel.name == "agent"]
    assert isinstance(channel, QuickAgent)
    return channel


def both(vm: VirtualMachine, command: str | tuple[str, ...], **keys: object) -> list[CommandOutcome]:
    """The outcome by maqet-exec and by QEMU's agent."""
    agent = agent_of(vm)
    request = CommandRequest(command, **keys)
    assert vm.on_loop(agent._quick(Deadline(60))), "maqet-exec does not answer"
    return [
        vm.on_loop(agent._port.run(request, Deadline(60))),
        vm.on_loop(agent._agent.run(request, Deadline(60))),
    ]


def commands_served(vm: VirtualMachine) -> int:
    """How many commands this connection to maqet-exec has started."""
    connection = agent_of(vm)._port._connection
    return connection._number if connection is not None else 0


def test_it_listens_when_the_guest_is_ready_and_serves_commands(marked_linux):
    assert marked_linux.life.vitals.exec_listens
    assert marked_linux.run("echo on").stdout == "on\n"
    before = commands_served(marked_linux)
    assert before > 0
    marked_linux.run("true")
    assert commands_served(marked_linux) == before + 1
    assert marked_linux.channel == "agent"


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("env | sort", {}),
        ("pwd; umask; ulimit -a; cat /proc/self/oom_score_adj; nice", {}),
        (("sh", "-c", "env | sort"), {}),
        (("env",), {}),
        (("pwd",), {}),
        ("grep -E '^(Sig|Cap|Uid|Groups|NoNewPrivs)' /proc/self/status", {}),
        ("ls -l /proc/self/fd | sed -n 's/.* \\([0-9] ->\\)/\\1/; s/[0-9]*]$//; s/.proc.*//; /->/p'", {}),
        ("ls -l /proc/self/fd/0 | sed 's/.*->//; s/:.*//'", {"input": b"x"}),
        ("env | sort; pwd", {"env": {"A": "b c"}, "cwd": "/tmp"}),
        (("env",), {"env": {"A": "b c"}}),
        ("pwd", {"cwd": "/no/such"}),
        ("nosuch", {}),
        ("kill -9 $$", {}),
        ("trap '' PIPE; tty", {}),
    ],
)
def test_a_command_gets_what_it_gets_by_qemus_agent(marked_linux, command, keys):
    quick, plain = both(marked_linux, command, **keys)
    assert quick == plain


@pytest.mark.parametrize("command", [("nosuch",), ("/etc/passwd",)])
def test_what_cannot_be_started_has_the_status_that_a_shell_gives(marked_linux, command):
    quick, plain = both(marked_linux, command)
    assert quick.returncode == plain.returncode
    assert command[0].encode() in quick.stderr


def test_many_bytes_both_ways(marked_linux):
    data = os.urandom(10_000_000)
    done = marked_linux.run("tee /proc/self/fd/2 | sha256sum", input=data, timeout=120, encoding=None)
    assert done.stdout.decode().split()[0] == hashlib.sha256(data).hexdigest()
    assert done.stderr == data


def test_a_late_command_is_ended_and_the_next_one_served(marked_linux):
    with pytest.raises(CommandTimeout, match="children were ended") as caught:
        marked_linux.run("echo partly; setsid sleep 4713 & sleep 4713", timeout=1)
    assert caught.value.stdout == "partly\n"
    assert marked_linux.run("ps | grep 'sleep 471[3]'", check=False).stdout == "", "children were left"


def test_a_guest_that_stands_still(marked_linux):
    marked_linux.run("true")
    marked_linux.pause()
    try:
        with pytest.raises(ChannelError, match="did not start the command within"):
            marked_linux.run("touch /tmp/late", timeout=0.3)
    finally:
        marked_linux.resume()
    assert marked_linux.run("echo on").stdout == "on\n"


def test_a_host_goes_and_another_one_comes(marked_linux):
    for number in range(5):
        assert marked_linux.run(f"echo {number}; yes | head -c 200000 >&2").stdout == f"{number}\n"
        marked_linux.on_loop(agent_of(marked_linux).close())


def test_it_costs_nothing_while_nobody_is_connected(marked_linux):
    used = "awk '{print $14 + $15}' /proc/$(pidof maqet-exec)/stat"
    before = int(marked_linux.run(used).stdout)
    marked_linux.on_loop(agent_of(marked_linux).close())
    time.sleep(1)
    ticks = int(marked_linux.run(used).stdout) - before
    assert ticks <= 10, f"maqet-exec used {ticks} hundredths of a second of CPU time while it had no host"


def test_spawned_processes(marked_linux):
    with marked_linux.spawn("echo up; exec sleep 4714") as process:
        assert process.returncode is None
        process.terminate()
        assert process.wait() == 128 + 15
        assert process.stdout == "up\n"


@pytest.fixture
def own_linux(boot) -> VirtualMachine:
    return boot("builtin:linux", memory="128M")


def test_after_a_restore(own_linux):
    own_linux.run("echo first > /tmp/file")
    own_linux.checkpoint("first")
    for text in ("second", "third"):
        own_linux.run(f"echo {text} > /tmp/file; head -c 3000000 /dev/zero")
        own_linux.restore("first")
        assert own_linux.run("cat /tmp/file").stdout == "first\n"
        assert commands_served(own_linux) == 1, "maqet-exec did not serve the command after the restore"


def test_without_it_qemus_agent_goes_on(own_linux):
    with pytest.raises(ChannelError, match="has closed its port while it ran a command"):
        own_linux.run("killall maqet-exec; sleep 4715", timeout=60)
    assert own_linux.run("echo on").stdout == "on\n"
    assert own_linux.channel == "agent"
    own_linux.reset()
    own_linux.wait_ready()
    assert own_linux.run("pidof maqet-exec").stdout.strip().isdigit()
    assert commands_served(own_linux) == 1, "maqet-exec does not serve the rebooted guest"
