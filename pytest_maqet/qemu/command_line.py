"""The command line of a VM: one builder for each concern, overlaid with the user's arguments."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_maqet.qemu.arguments import merged
from pytest_maqet.qemu.board import Board, board
from pytest_maqet.qemu.capabilities import Capabilities
from pytest_maqet.qemu.drives import drive_options
from pytest_maqet.qemu.extras import end_actions, extra_devices
from pytest_maqet.qemu.inputs import Inputs
from pytest_maqet.qemu.machine_options import (
    boot_options,
    machine_options,
    machine_text,
    root_ports,
    screen_options,
)
from pytest_maqet.qemu.ports import (
    agent_options,
    exec_options,
    monitor_options,
    serial_options,
    user_network,
    wake_options,
)
from pytest_maqet.qemu.quoting import Option, option_text

if TYPE_CHECKING:
    from pytest_maqet.config import VmConfig


@dataclass(frozen=True)
class CommandLine:
    """A program and its arguments; `fds` are the descriptors it must inherit under the same numbers."""

    binary: Path
    arguments: tuple[str, ...]
    fds: tuple[int, ...] = ()

    @property
    def argv(self) -> tuple[str, ...]:
        """What is executed, the program first."""
        return (str(self.binary), *self.arguments)

    def __str__(self) -> str:
        """One line to paste into a shell."""
        return shlex.join(self.argv)

    def lines(self) -> str:
        """The same with one option a line, still to paste into a shell."""
        rows: list[list[str]] = [[str(self.binary)]]
        for argument in self.arguments:
            # A value that begins with a dash gets a line of its own too; the shell does not mind.
            if argument.startswith("-"):
                rows.append([argument])
            else:
                rows[-1].append(argument)
        return " \\\n  ".join(shlex.join(row) for row in rows)


def build(config: VmConfig, caps: Capabilities, accelerator: str, inputs: Inputs) -> CommandLine:
    """The command line for one start of a VM.

    `accelerator` is the verdict of `accelerator.choose`. QEMU starts paused (`-S`); the starter sends `cont`.
    Raises `StartError` for a machine type this QEMU does not have, `ConfigError` for devices the machine has
    no place for and for raw arguments that cannot be used.
    """
    machine = machine_text(config, caps)
    found = board(caps, machine)
    ours = [
        *_process(config, inputs),
        *machine_options(config, found, machine, accelerator, inputs.ram),
        *boot_options(inputs),
        *screen_options(config, found, inputs),
        *end_actions(),
        *monitor_options(inputs.monitors),
        *serial_options(config.name, machine, caps, found, inputs.serial),
        *root_ports(caps, found),
        *extra_devices(caps, found, generation_id=inputs.generation_id),
        *agent_options(found, inputs.agent),
        *wake_options(found, inputs.wake),
        *exec_options(found, inputs.exec),
        *drive_options(config.name, machine, found, inputs.drives, bootable=_firmware_picks(config, inputs)),
        *_network(config, machine, caps, found, inputs),
    ]
    return CommandLine(caps.binary, _flat(merged(config, ours)), inputs.fds)


def _process(config: VmConfig, inputs: Inputs) -> list[Option]:
    options = [
        Option("name", option_text(None, {"guest": config.name})),
        Option("nodefaults"),
        Option("no-user-config"),
        Option("S"),
    ]
    if inputs.pidfile is not None:
        options.append(Option("pidfile", str(inputs.pidfile)))
    if inputs.incoming:
        options.append(Option("incoming", "defer"))
    return options


def _firmware_picks(config: VmConfig, inputs: Inputs) -> bool:
    """Whether drives get an order to be booted in: not beside a kernel, nor beside the user's own order."""
    raw = {argument.option for argument in config.arguments}
    return inputs.kernel is None and not raw & {"boot", "kernel"}


def _network(
    config: VmConfig, machine: str, caps: Capabilities, found: Board, inputs: Inputs
) -> list[Option]:
    # Only a VM with nothing else to boot may want to boot from the network.
    rom = inputs.kernel is None and not inputs.drives
    return [
        option
        for number, network in enumerate(config.network)
        for option in user_network(
            config.name, machine, caps, found, number, _host_ports(config, number, inputs), rom=rom
        )
        if network.kind == "user"
    ]


def _host_ports(config: VmConfig, number: int, inputs: Inputs) -> dict[int, int]:
    """Guest port → host port of a card; 0 lets QEMU pick a free one.

    Ports that were forwarded at run time belong to the first card.
    """
    if not inputs.forwards:
        return {}
    users = [card for card in config.network if card.kind == "user"]
    card = config.network[number]
    ports = {port: inputs.host_ports.get(port, 0) for port in card.forward.values()}
    if users and card is users[0]:
        said = {port for other in users for port in other.forward.values()}
        ports |= {port: host for port, host in inputs.host_ports.items() if port not in said}
    return ports


def _flat(options: Sequence[Option]) -> tuple[str, ...]:
    flat: list[str] = []
    for option in options:
        flat.append(f"-{option.name}")
        if option.value is not None:
            flat.append(option.value)
    return tuple(flat)
