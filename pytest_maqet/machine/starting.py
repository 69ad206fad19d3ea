"""From a configuration to a running QEMU with an open monitor: the one way a VM comes to life.

Four ways in: `new_life` (fresh overlays), `cloned_life` (memory and disks of a template), `start_again` (the
disks as they are), `joined_life` (a VM that another process of the run has started). A `Launch` is what they
have in common.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

from pytest_maqet.config import VmConfig
from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ConfigError, GuestPanic, MaqetError, NotSupported, StartError, WaitTimeout
from pytest_maqet.loop import LoopThread
from pytest_maqet.machine.drives import make_drives
from pytest_maqet.machine.host import Host
from pytest_maqet.machine.life import Life, LifeFacts
from pytest_maqet.machine.plan import Plan, embedded_guest, plan_for
from pytest_maqet.machine.removal import remove_tree
from pytest_maqet.machine.sockets import listen
from pytest_maqet.masking import MASKS, masked
from pytest_maqet.qemu.command_line import CommandLine
from pytest_maqet.qemu.events import Mailbox
from pytest_maqet.qemu.inputs import Drive, Ram
from pytest_maqet.qemu.start_failure import explain
from pytest_maqet.runs.bounded_log import last_bytes
from pytest_maqet.runs.exit_status import Exit
from pytest_maqet.runs.private_files import write_private
from pytest_maqet.runs.process import QemuProcess
from pytest_maqet.runs.vm_directory import VmDirectory
from pytest_maqet.templates.manifest import Damaged
from pytest_maqet.waiting.standstill import standstill
from pytest_maqet.waiting.vitals import Vitals

#: How much of a console is searched for secrets before its end is shown, in bytes.
BYTES_SEARCHED = 16 * 1024
#: Devices with a screen, by the beginning of their names in QEMU.
_SCREENS = (
    "VGA",
    "secondary-vga",
    "virtio-gpu",
    "virtio-vga",
    "bochs",
    "ramfb",
    "qxl",
    "cirrus",
    "vmware",
    "ati",
)


#: How much of QEMU's stderr is looked at when a start fails, in bytes.
_STDERR = 64 * 1024

#: What sets a paused QEMU going, once its events are being kept.
Go = Callable[[Life, Deadline], Awaitable[None]]


@dataclass(frozen=True)
class Launch:
    """One start of a QEMU process: the plan, where, with which disks, and what is special this time.

    `incoming`: it waits for a state instead of booting. `inherited` are descriptors QEMU keeps open.
    """

    plan: Plan
    host: Host
    directory: VmDirectory
    drives: tuple[Drive, ...]
    mailbox: Mailbox = field(default_factory=Mailbox)
    started_by: str = "boot"
    ram: Ram | None = None
    incoming: bool = False
    forwards: bool = True
    host_ports: Mapping[int, int] = field(default_factory=dict)
    inherited: tuple[int, ...] = ()

    def run(self, loop: LoopThread, go: Go) -> Life:
        """Start QEMU, paused, open its monitor, and let `go` set the guest going.

        Events are being kept by then, so that none is lost. Raises StartError with what QEMU said, how it
        ended, its console and what to do; what `go` raises of itself goes through.
        """
        config, directory = self.plan.config, self.directory
        with ExitStack() as stack:
            room = stack.enter_context(self.host.room.hold(config, directory))
            command_line, facts = self._prepared(stack, room)
            write_private(directory.record_file, json.dumps(asdict(facts)))
            process = QemuProcess.launch(
                command_line.argv, directory, self.host.lease, pass_fds=command_line.fds
            )
        time = self.host.scale(self.plan.accelerator) * config.timeouts.qmp
        try:
            life = loop.run(self._going(process, facts, go, time))
        except BaseException as error:
            ended = process.exit()  # before we end it ourselves: did it die on its own?
            process.dismiss(2.0)
            process.close()
            if isinstance(error, MaqetError) and not isinstance(
                error, (ConfigError, GuestPanic, NotSupported, Damaged)
            ):
                raise _verdict(config, command_line, ended, directory, error) from None
            raise
        return life

    async def _going(self, process: QemuProcess, facts: LifeFacts, go: Go, time: float) -> Life:
        life = await _connected(self.plan.config, self.directory, process, facts, self.mailbox, time)
        _know_drives(life, self.drives)
        try:
            await go(life, Deadline.after(time))
        except BaseException:
            await life.disconnect()
            raise
        return life

    def _prepared(self, stack: ExitStack, room: tuple[int, ...]) -> tuple[CommandLine, LifeFacts]:
        plan = self.plan
        monitors = self.host.monitors
        sockets = listen(
            self.directory, plan.config.serial, stack, monitors=monitors, agent="agent" in plan.connect
        )
        inputs = replace(
            plan.inputs(self.drives, sockets, self.directory, ram=self.ram),
            incoming=self.incoming,
            forwards=self.forwards,
            host_ports=self.host_ports,
            inherited=(*self.inherited, *room),
        )
        command_line = plan.command_line(inputs)
        _refuse_secrets(plan.config, command_line)
        facts = LifeFacts(
            command_line=str(command_line),
            accelerator=plan.accelerator,
            started_by=self.started_by,
            monitors=monitors,
            connect=plan.connect,
            has_agent=sockets.agent is not None,
            has_display=_has_display(command_line),
            default_ready=plan.default_ready,
        )
        return command_line, facts


def new_life(config: VmConfig, host: Host, loop: LoopThread) -> Life:
    """Boot a VM from pristine disks, in a new directory.

    Raises StartError (QEMU refused or died, an image is not usable); nothing is left behind then.
    """
    directory = host.run.new_vm_directory(config.name)
    try:
        plan = plan_for(config, host)
        drives = make_drives(config, plan.guest, directory, fresh=True, report=host.report)
        return Launch(plan, host, directory, drives).run(loop, cont)
    except BaseException:
        remove_tree(directory.path)
        raise


def start_again(old: Life, config: VmConfig, host: Host, loop: LoopThread) -> Life:
    """Boot a stopped VM from its current disks, in its directory; console logs and events go on."""
    plan = plan_for(config, host)
    drives = make_drives(config, plan.guest, old.directory, fresh=False, report=host.report)
    inherited = (old.template.fileno(),) if old.template is not None else ()
    launch = Launch(plan, host, old.directory, drives, old.vitals.mailbox, inherited=inherited)
    life = launch.run(loop, cont)
    life.template, old.template = old.template, None
    return life


def joined_life(config: VmConfig, directory: VmDirectory, loop: LoopThread) -> Life:
    """Use a VM that another process of this run has started.

    Raises QemuDied when it is not alive any more, StartError when it never was.
    """
    facts = _record(directory)
    process = QemuProcess.attach(directory)
    life = loop.run(_connected(config, directory, process, facts, Mailbox(), config.timeouts.qmp))

    def quiet(_line: str) -> None:
        """All was fetched and built when the VM started."""

    guest = embedded_guest(config, quiet)
    _know_drives(life, make_drives(config, guest, directory, fresh=False, report=quiet))
    return life


def _know_drives(life: Life, drives: tuple[Drive, ...]) -> None:
    life.drives = drives
    life.vitals.disks = {drive.node_name: drive.file for drive in drives if drive.file is not None}


async def cont(life: Life, deadline: Deadline) -> None:
    """Let the guest run."""
    await life.execute("cont", None, deadline)


async def _connected(
    config: VmConfig,
    directory: VmDirectory,
    process: QemuProcess,
    facts: LifeFacts,
    mailbox: Mailbox,
    time: float,
) -> Life:
    logs = {name: directory.serial_log(name) for name in config.serial}
    vitals = Vitals(config.name, logs, config.fail_on.patterns, directory.stderr_log, mailbox)
    life = Life(config, directory, process, facts, vitals)
    try:
        await life.connect(Deadline.after(time))
    except BaseException as error:
        if isinstance(error, WaitTimeout):
            error.add_cause(standstill(vitals))
        await life.disconnect()
        raise
    return life


def _verdict(
    config: VmConfig, command_line: CommandLine, ended: Exit | None, directory: VmDirectory, error: MaqetError
) -> StartError:
    """One error for every way a start can fail: what QEMU said, how it ended, its console, what to do."""
    stderr = ""
    with suppress(OSError):
        stderr = last_bytes(directory.stderr_log, _STDERR).decode(errors="replace")
    if ended is not None:
        return explain(command_line, ended, stderr, _console_tail(directory))
    return StartError(
        f"{config.name}: QEMU runs, but its start could not be verified: {error.message}\n"
        f"QEMU's stderr:\n{stderr.strip() or '(nothing)'}\nthe command line was:\n{command_line.lines()}",
        hint=error.hint,
    )


def _refuse_secrets(config: VmConfig, command_line: CommandLine) -> None:
    """Everybody on the host may read a command line (proc(5), /proc/PID/cmdline)."""
    for before, argument in zip(("", *command_line.argv), command_line.argv, strict=False):
        if name := MASKS.name_in(argument):
            option = f" (after {before})" if before.startswith("-") else ""
            raise ConfigError(
                f"{config.name}: the value of {name}, a secret, would be on QEMU's command line{option}, "
                "where everybody on this host can read it",
                hint="put it into a file that QEMU reads or the guest gets, or send it over the console "
                "(`send_env`)",
            )


def _has_display(command_line: CommandLine) -> bool:
    """Whether there is a screen to take a picture of."""
    given = pairwise(command_line.arguments)
    return any(
        (option == "-vga" and value != "none")
        or (option == "-device" and value.split(",")[0].startswith(_SCREENS))
        for option, value in given
    )


def _console_tail(directory: VmDirectory) -> str:
    tails = []
    for log in sorted(directory.path.glob("serial-*.log")):
        with suppress(OSError):
            tails.append(masked(last_bytes(log, BYTES_SEARCHED).decode(errors="replace"))[-2000:])
    return "\n".join(tails)


def _record(directory: VmDirectory) -> LifeFacts:
    try:
        found: dict[str, Any] = json.loads(directory.record_file.read_text())
    except (OSError, ValueError) as error:
        raise StartError(f"the VM in {directory.path} cannot be joined: {error}") from error
    found["connect"] = tuple(found["connect"])
    return LifeFacts(**found)
