"""From a configuration to a running QEMU with an open monitor: the one way a VM comes to life.

Three ways in: `new_life` (fresh overlays), `start_again` (the disks as they are), `joined_life` (a VM that
another process of the run has started). All end with QEMU running and its events being kept.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pytest_maqet.config import BuiltinImage, VmConfig
from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ConfigError, MaqetError, StartError
from pytest_maqet.guests.builtin import BuiltinGuest, builtin_guest
from pytest_maqet.loop import LoopThread
from pytest_maqet.machine.drives import make_drives
from pytest_maqet.machine.host import Host
from pytest_maqet.machine.life import Life, LifeFacts
from pytest_maqet.machine.removal import remove_tree
from pytest_maqet.qemu import accelerator
from pytest_maqet.qemu.binary import find_binary
from pytest_maqet.qemu.capabilities import capabilities
from pytest_maqet.qemu.command_line import CommandLine, build
from pytest_maqet.qemu.events import Mailbox
from pytest_maqet.qemu.inputs import Drive, Inputs, SerialPort
from pytest_maqet.qemu.start_failure import explain
from pytest_maqet.runs.exit_status import Exit
from pytest_maqet.runs.process import QemuProcess
from pytest_maqet.runs.vm_directory import VmDirectory
from pytest_maqet.waiting.vitals import Vitals

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


@dataclass(frozen=True)
class _Sockets:
    """Listening sockets that QEMU inherits: bound by us, so that nobody has to poll for them."""

    monitors: tuple[int, ...]
    serial: tuple[SerialPort, ...]
    agent: int | None
    wake: int | None


def new_life(config: VmConfig, host: Host, loop: LoopThread) -> Life:
    """Boot a VM from pristine disks, in a new directory.

    Raises StartError (QEMU refused or died, an image is not usable); nothing is left behind then.
    """
    directory = host.run.new_vm_directory(config.name)
    try:
        return _boot(config, host, loop, directory, Mailbox(), fresh=True)
    except BaseException:
        remove_tree(directory.path)
        raise


def start_again(old: Life, config: VmConfig, host: Host, loop: LoopThread) -> Life:
    """Boot a stopped VM from its current disks, in its directory; console logs and events go on."""
    return _boot(config, host, loop, old.directory, old.vitals.mailbox, fresh=False)


def joined_life(config: VmConfig, directory: VmDirectory, loop: LoopThread) -> Life:
    """Use a VM that another process of this run has started.

    Raises QemuDied when it is not alive any more, StartError when it never was.
    """
    facts = _record(directory)
    process = QemuProcess.attach(directory)
    life = loop.run(_connected(config, directory, process, facts, Mailbox(), config.timeouts.qmp))

    def quiet(_line: str) -> None:
        """All was fetched and built when the VM started."""

    life.drives = make_drives(config, _builtin(config, quiet), directory, fresh=False, report=quiet)
    return life


def _boot(
    config: VmConfig, host: Host, loop: LoopThread, directory: VmDirectory, mailbox: Mailbox, *, fresh: bool
) -> Life:
    binary = find_binary(config)
    caps = capabilities(binary)
    accel = accelerator.choose(binary, caps, config.accel or host.accel).name
    guest = _builtin(config, host.report)
    drives = make_drives(config, guest, directory, fresh=fresh, report=host.report)
    with ExitStack() as stack:
        sockets = _listen(config, guest, directory, host.monitors, stack)
        command_line = build(config, caps, accel, _inputs(config, guest, drives, directory, sockets))
        facts = LifeFacts(
            command_line=str(command_line),
            accelerator=accel,
            started_by="boot",
            monitors=host.monitors,
            connect=_connect_order(config, guest),
            has_agent=sockets.agent is not None,
            has_display=_has_display(command_line),
            default_ready=guest.ready if guest is not None else None,
        )
        directory.record_file.write_text(json.dumps(asdict(facts)))
        process = QemuProcess.launch(command_line.argv, directory, host.lease, pass_fds=command_line.fds)
    try:
        life = loop.run(
            _running(config, directory, process, facts, mailbox, host.scale(accel) * config.timeouts.qmp)
        )
    except BaseException as error:
        ended = process.exit()  # before we end it ourselves: did it die on its own?
        process.dismiss(2.0)
        process.close()
        if isinstance(error, MaqetError) and not isinstance(error, ConfigError):
            raise _verdict(config, command_line, ended, directory, error) from None
        raise
    life.drives = drives
    return life


async def _running(
    config: VmConfig,
    directory: VmDirectory,
    process: QemuProcess,
    facts: LifeFacts,
    mailbox: Mailbox,
    time: float,
) -> Life:
    life = await _connected(config, directory, process, facts, mailbox, time)
    try:
        await life.execute("cont", None, Deadline.after(time))
    except BaseException:
        await life.disconnect()
        raise
    return life


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
    except BaseException:
        await life.disconnect()
        raise
    return life


def _verdict(
    config: VmConfig, command_line: CommandLine, ended: Exit | None, directory: VmDirectory, error: MaqetError
) -> StartError:
    """One error for every way a start can fail: what QEMU said, how it ended, its console, what to do."""
    stderr = directory.stderr_log.read_text(errors="replace") if directory.stderr_log.exists() else ""
    if ended is not None:
        return explain(command_line, ended, stderr, _console_tail(directory))
    return StartError(
        f"{config.name}: QEMU runs, but its start could not be verified: {error.message}\n"
        f"QEMU's stderr:\n{stderr.strip() or '(nothing)'}\nthe command line was:\n{command_line.lines()}",
        hint=error.hint,
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
            tails.append(log.read_bytes()[-2000:].decode(errors="replace"))
    return "\n".join(tails)


def _builtin(config: VmConfig, report: Callable[[str], None]) -> BuiltinGuest | None:
    if not isinstance(config.image, BuiltinImage):
        return None
    return builtin_guest(config.image.name, config.arch, report=report)


def _connect_order(config: VmConfig, guest: BuiltinGuest | None) -> tuple[str, ...]:
    """The channels in the order to try: those the YAML names, and that a built-in guest has."""
    if guest is None:
        return tuple(config.guest.connect)
    return tuple(name for name in config.guest.connect if name in guest.connect)


def _listen(
    config: VmConfig, guest: BuiltinGuest | None, directory: VmDirectory, monitors: int, stack: ExitStack
) -> _Sockets:
    serial = []
    for name in config.serial:
        log = directory.serial_log(name)
        os.close(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        serial.append(SerialPort(name, _bound(directory.serial_socket(name), stack), log))
    agent = wake = None
    if "agent" in _connect_order(config, guest):
        agent = _bound(directory.agent_socket, stack)
        wake = _bound(directory.wake_socket, stack)
    return _Sockets(
        monitors=tuple(_bound(directory.monitor_socket(number), stack) for number in range(monitors)),
        serial=tuple(serial),
        agent=agent,
        wake=wake,
    )


def _bound(path: Path, stack: ExitStack) -> int:
    path.unlink(missing_ok=True)
    listening = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    listening.bind(str(path))
    path.chmod(0o600)
    listening.listen(16)
    return listening.fileno()


def _inputs(
    config: VmConfig,
    guest: BuiltinGuest | None,
    drives: Sequence[Drive],
    directory: VmDirectory,
    sockets: _Sockets,
) -> Inputs:
    kernel, initrd, append = config.kernel, config.initrd, config.append
    if guest is not None and kernel is None:
        kernel = guest.kernel
        initrd = initrd or guest.initrd
        if guest.append:
            append = f"{guest.append} {append}" if append else guest.append
    return Inputs(
        drives=tuple(drives),
        kernel=kernel,
        initrd=initrd,
        append=append,
        monitors=sockets.monitors,
        serial=sockets.serial,
        agent=sockets.agent,
        wake=sockets.wake,
        pidfile=directory.qemu_pid_file,
    )


def _record(directory: VmDirectory) -> LifeFacts:
    try:
        found: dict[str, Any] = json.loads(directory.record_file.read_text())
    except (OSError, ValueError) as error:
        raise StartError(f"the VM in {directory.path} cannot be joined: {error}") from error
    found["connect"] = tuple(found["connect"])
    return LifeFacts(**found)
