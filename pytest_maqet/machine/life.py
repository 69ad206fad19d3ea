"""One QEMU process of a VM, from its launch to its exit, and all connections to it.

A VM that is stopped and started again has two lives; directory, disks, console logs and event mailbox go on.
Loop-thread only, but for the plain attributes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pytest_maqet.config import VmConfig
from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError, DiskError, GuestPanic, MaqetError, QMPCommandError
from pytest_maqet.guest.channel import Channel, pick
from pytest_maqet.guest.commands import END_GRACE, CommandRequest, CompletedCommand, command_timeout
from pytest_maqet.guest.quick_agent import QuickAgent
from pytest_maqet.guest.remote_process import RemoteProcess, start_process
from pytest_maqet.guest.serial_port import SerialPort
from pytest_maqet.guest.serial_shell import SerialShell
from pytest_maqet.guest.serial_writer import SerialWriter
from pytest_maqet.guest.wake_port import WakePort
from pytest_maqet.machine.agent_choice import agent_channel
from pytest_maqet.machine.agent_port import AgentPort
from pytest_maqet.machine.forwarding import forward
from pytest_maqet.machine.monitors import claim_monitor
from pytest_maqet.machine.under_way import Overdue, UnderWay, unless_stopped
from pytest_maqet.qemu.inputs import Drive
from pytest_maqet.qemu.monitor import Monitor
from pytest_maqet.runs.leases import Lease
from pytest_maqet.runs.process import QemuProcess
from pytest_maqet.runs.vm_directory import VmDirectory
from pytest_maqet.templates.template import Frozen
from pytest_maqet.waiting.engine import race
from pytest_maqet.waiting.vitals import Vitals

T = TypeVar("T")


@dataclass(frozen=True)
class LifeFacts:
    """What every process that uses the VM must know of its QEMU; kept in the VM's record file."""

    command_line: str
    accelerator: str
    started_by: str
    monitors: int
    connect: tuple[str, ...]
    has_agent: bool
    has_display: bool
    default_ready: str | None = None


class Life:
    """A running QEMU and our connections to it."""

    def __init__(
        self, config: VmConfig, directory: VmDirectory, process: QemuProcess, facts: LifeFacts, vitals: Vitals
    ) -> None:
        self.config = config
        self.directory = directory
        self.process = process
        self.facts = facts
        self.vitals = vitals
        self.drives: tuple[Drive, ...] = ()
        #: the template that a clone was made of, and what keeps it
        self.frozen: Frozen | None = None
        self.template: Lease | None = None
        self.lines = {name: SerialWriter(directory.serial_socket(name)) for name in config.serial}
        self.shells = {
            name: SerialShell(log, self.lines[name], vitals.pulse, config.guest, config.name)
            for name, log in vitals.consoles.items()
        }
        self.wake_port = WakePort(directory.wake_socket, config.name)
        self._monitor: Monitor | None = None
        self._claim = contextlib.ExitStack()
        self._channels: tuple[Channel, ...] | None = None
        self._picked: Channel | None = None
        self._picking = asyncio.Lock()
        self._agent_port = AgentPort(vitals, self.execute, config.timeouts.qmp)
        self._under_way = UnderWay(config.name)

    async def connect(self, deadline: Deadline) -> None:
        """Follow the process and open the QMP session.

        Raises what `Monitor.connect` raises, or QemuDied when QEMU ended instead.
        """
        self.vitals.follow(self.process)
        number = claim_monitor(self.directory, self.facts.monitors, self._claim)
        self._monitor = Monitor(
            self.directory.monitor_socket(number),
            on_event=self.vitals.on_event,
            on_lost=self.vitals.pulse.beat,
            vm_name=self.config.name,
        )
        await race(self.vitals, self._monitor.connect(deadline), _later(deadline, 1))

    async def execute(self, command: str, arguments: Mapping[str, Any] | None, deadline: Deadline) -> object:
        """Execute a QMP command; QEMU's death ends it at once, a panic or a full disk does not."""
        if self.vitals.exit is not None and (self._monitor is None or not self._monitor.connected):
            raise self.vitals.death()
        if self._monitor is None:
            raise ChannelError(f"{self.config.name}: there is no QMP session")
        if command == "quit":
            self.vitals.end_wanted = self.vitals.end_wanted or "ended by the QMP command quit"
        work = self._monitor.execute(command, arguments, deadline)
        return await race(self.vitals, work, _later(deadline, 1), (GuestPanic, DiskError))

    async def run_state(self, deadline: Deadline) -> str:
        """QEMU's run state in the words of query-status."""
        answer = await self.execute("query-status", None, deadline)
        assert isinstance(answer, dict)
        return str(answer["status"])

    async def monitor_command(self, line: str, deadline: Deadline) -> str:
        """Run a human monitor command; its errors come back as text."""
        answer = await self.execute("human-monitor-command", {"command-line": line}, deadline)
        return str(answer)

    # -- commands in the guest -----------------------------------------------------------------------------

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The ways into the guest, in the order of `guest: connect:`."""
        if self._channels is None:
            self._channels = tuple(self._make_channels())
        return self._channels

    def _make_channels(self) -> list[Channel]:
        made: list[Channel] = []
        for name in self.facts.connect:
            if name == "agent" and self.facts.has_agent:
                made.append(agent_channel(self.config, self.directory, self.vitals, self._agent_port))
            elif name == "console":
                made.append(self.shells[self.config.serial[0]])
        return made

    def serial_port(self, name: str) -> SerialPort:
        """A serial port by its name in `serial:`."""
        typing = self.shells[name].typing
        return SerialPort(
            name, self.vitals.consoles[name], self.lines[name], self.vitals.pulse, typing, self.config.name
        )

    async def channel(self, deadline: Deadline) -> Channel:
        """The channel that commands take: the first that answered, kept until the VM is reset or ends."""
        async with self._picking:
            if self._picked is None or (self._picked.name == "agent" and await self._agent_port.gone()):
                self._picked = await pick(self.channels, deadline)
            return self._picked

    def expect_channel(self, name: str | None) -> None:
        """Take commands over this channel without asking it first: it answered when the VM was frozen."""
        self._picked = next((channel for channel in self.channels if channel.name == name), None)

    @property
    def picked_channel(self) -> str | None:
        """The name of the channel that commands take; None when none was needed yet."""
        return self._picked.name if self._picked is not None else None

    async def reach(self) -> None:
        """Connect to the agent's port before a frozen guest goes on, so that it never sees nobody there."""
        for channel in self.channels:
            if isinstance(channel, QuickAgent):
                await channel.reach()

    @property
    def agent_port(self) -> AgentPort:
        """Which of our programs listen in the guest."""
        return self._agent_port

    async def settle(self, deadline: Deadline) -> None:
        """Be connected to what listens in a guest that is going to be frozen."""
        for channel in self.channels:
            if isinstance(channel, QuickAgent):
                await channel.settle(deadline)

    async def hush(self) -> None:
        """End conversations with the guest, so that none is frozen half-way; the next call begins anew.

        The agent's connection stays: it is idle between two requests, and would miss whoever hangs up.
        """
        for shell in self.shells.values():
            with contextlib.suppress(MaqetError, OSError):
                await shell.close()

    def forget_channel(self) -> None:
        """The guest starts anew: the next command looks for a channel again."""
        self._picked = None

    async def run(self, request: CommandRequest, deadline: Deadline) -> CompletedCommand[Any]:
        """Run a command over the picked channel; ends at once when the guest panics or QEMU dies."""
        return await self.run_over(await self.guarded(self.channel(deadline), deadline), request, deadline)

    async def run_over(
        self, channel: Channel, request: CommandRequest, deadline: Deadline
    ) -> CompletedCommand[Any]:
        """Run a command over this channel and no other."""
        started = time.monotonic()
        work = channel.run(request, deadline)
        guest_work = self._agent_port.while_open(work) if channel.name == "agent" else work
        try:
            outcome = await self.guarded(guest_work, deadline)
        except Overdue:
            raise command_timeout(self.config.name, request, deadline, None, ended=False) from None
        return CompletedCommand.from_outcome(request, outcome, duration=time.monotonic() - started)

    async def spawn(self, request: CommandRequest, deadline: Deadline) -> RemoteProcess:
        """Start a command that goes on in the guest."""
        channel = await self.guarded(self.channel(deadline), deadline)
        return await self.guarded(
            start_process(channel, request, deadline, vm_name=self.config.name), deadline
        )

    # What conditions that ask the guest need (waiting.probed.GuestReach):

    async def run_in_guest(self, command: str, deadline: Deadline) -> CompletedCommand[Any]:
        """Run a shell command and return its result whatever its status."""
        return await self.run(CommandRequest(command), deadline)

    def has_channels(self) -> bool:
        """Whether there is any way to run a command."""
        return bool(self.channels)

    async def host_address(self, guest_port: int) -> tuple[str, int]:
        """As `forward`."""
        return await forward(self, guest_port, Deadline.after(self.config.timeouts.qmp))

    async def agent_answers(self, deadline: Deadline) -> str:
        """An empty string when the guest agent answers, else why not."""
        agent = next((channel for channel in self.channels if channel.name == "agent"), None)
        if agent is None:
            return "this VM has no guest agent channel: `guest: {connect: [agent]}` gives it one"
        try:
            await agent.probe(deadline)
        except MaqetError as error:
            return str(error)
        return ""

    async def guarded(self, work: Coroutine[Any, Any, T], deadline: Deadline, *, grace: float = 0.0) -> T:
        """Race `work` against the VM's failures; a channel words its own time-out, if QEMU lets it."""
        work = unless_stopped(self.vitals, work, deadline)
        racing = race(self.vitals, work, _later(deadline, END_GRACE + 1), even_excused=True, grace=grace)
        return await self._under_way.run(racing)

    async def break_off(self) -> None:
        """The guest goes back in time: end all that is under way with it; in it nothing is cleared up."""
        await self._under_way.break_off()
        await self._close_channels()
        self.forget_channel()

    # -- the end -----------------------------------------------------------------------------------------

    async def quit(self, deadline: Deadline) -> None:
        """Ask QEMU to end by QMP and wait for its exit; a QEMU that does not obey raises nothing."""
        with contextlib.suppress(MaqetError, QMPCommandError, TimeoutError):
            await self.execute("quit", None, deadline)
        await self.wait_exit(deadline)

    async def finish(self) -> None:
        """The guest has powered off and QEMU stands paused: end QEMU too."""
        self.vitals.end_wanted = self.vitals.end_wanted or "the guest powered off"
        await self.quit(Deadline.after(self.config.timeouts.qmp))

    async def wait_exit(self, deadline: Deadline) -> bool:
        """Whether QEMU's process has ended before the deadline."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline.remaining):
                while self.vitals.exit is None:
                    await self.vitals.pulse.wait()
        return self.vitals.exit is not None

    async def disconnect(self) -> None:
        """Close every connection; the process is left as it is. Idempotent."""
        await self._close_channels()
        self._channels = ()
        for line in self.lines.values():
            await line.close()
        await self.wake_port.close()
        if self._monitor is not None:
            await self._monitor.close()
            self._monitor = None
        self._claim.close()
        self.vitals.unfollow()

    async def _close_channels(self) -> None:
        for channel in (*(self._channels or ()), *self.shells.values()):
            with contextlib.suppress(MaqetError, OSError):
                await channel.close()


def _later(deadline: Deadline, seconds: float) -> Deadline:
    """For work that ends at its deadline by itself, and words its error better than a race could."""
    return Deadline.after(deadline.remaining + seconds)
