"""The machine itself: type, accelerator, processors, memory, firmware, clock, screen, and what it boots."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_maqet.config.machine_models import BuiltinImage
from pytest_maqet.errors import StartError
from pytest_maqet.qemu.arguments import said_pairs
from pytest_maqet.qemu.board import Board
from pytest_maqet.qemu.capabilities import Capabilities
from pytest_maqet.qemu.inputs import Inputs, Ram
from pytest_maqet.qemu.quoting import Option, Value, option_text, split_option

if TYPE_CHECKING:
    from pytest_maqet.config import VmConfig

_MIB = 1 << 20
#: The machine types to take where the user names none, by target; QEMU's own default where it has one.
_USUAL = {
    "x86_64": "q35",
    "i386": "q35",
    "aarch64": "virt",
    "arm": "virt",
    "riscv64": "virt",
    "riscv32": "virt",
}
#: Free sockets for devices plugged in while the guest runs; pcie.0 itself takes none.
_SPARE_ROOT_PORTS = 4


def machine_text(config: VmConfig, caps: Capabilities) -> str:
    """The whole `-machine` option of a VM: the versioned type, then the user's options for it.

    A short name as "q35" becomes the versioned type it stands for today ("pc-q35-7.2"), so that a state saved
    now is not loaded into another machine after an upgrade.
    Raises `StartError` with the nearest names when there is no such type.
    """
    name = ""
    options: dict[str, Value] = {}
    said = split_option(config.machine) if config.machine else []
    for key, value in (*said, *said_pairs(config, "machine")):
        if key in (None, "type"):
            name = value
        else:
            options[key] = value
    name = name or _usual_machine(caps)
    machine = caps.machine(name)
    if machine is None:
        raise unknown_machine(name, caps, f"VM '{config.name}'")
    return option_text(machine.name, options)


def unknown_machine(name: str, caps: Capabilities, who: str) -> StartError:
    """The error for a machine type that this QEMU does not have."""
    near = difflib.get_close_matches(name, caps.machine_names, n=3, cutoff=0.4)
    usual = [machine.alias for machine in caps.machines if machine.alias]
    known = ", ".join(near or [*usual, *(["microvm"] if caps.machine("microvm") else [])])
    return StartError(
        f"{who} wants machine type {name!r}, which {caps.binary} (QEMU {caps.version_text}) does not have",
        hint=f"{'nearest' if near else 'it has, among others'}: {known}; all: `{caps.binary} -machine help`",
    )


def machine_options(
    config: VmConfig, found: Board, machine: str, accelerator: str, ram: Ram | None = None
) -> list[Option]:
    """Type, accelerator, processor, memory, firmware and clock."""
    options = [
        Option("machine", machine if ram is None else f"{machine},memory-backend={ram.id}"),
        Option("accel", accelerator),
        *_processors(config, found, accelerator),
        Option("m", _memory(config.memory)),
    ]
    if ram is not None:
        # Not `readonly=on`: QEMU 7.2 then starts and never boots, and newer ones want `rom=off` beside it. A
        # private mapping is never written to the file whatever its mode.
        backend: dict[str, Value] = {
            "id": ram.id,
            "size": ram.size,
            "mem-path": ram.file,
            "share": ram.shared,
        }
        options.append(Option("object", option_text("memory-backend-file", backend)))
    if isinstance(config.firmware, Path):
        options.append(Option("bios", str(config.firmware)))
    if config.rtc is not None:
        clock = {"base": config.rtc.base, "clock": config.rtc.clock, "driftfix": config.rtc.driftfix}
        options.append(Option("rtc", option_text(None, clock)))
    return options


def boot_options(inputs: Inputs) -> list[Option]:
    """Kernel, initial RAM disk and kernel command line, where the VM boots a kernel directly."""
    options = []
    if inputs.kernel is not None:
        options.append(Option("kernel", str(inputs.kernel)))
    if inputs.initrd is not None:
        options.append(Option("initrd", str(inputs.initrd)))
    if inputs.append is not None:
        options.append(Option("append", inputs.append))
    return options


def screen_options(config: VmConfig, found: Board, inputs: Inputs) -> list[Option]:
    """Where the screen is shown, and on which graphics card."""
    vga = config.vga
    if vga is None:
        # A kernel booted directly and the builtin guests talk on the serial port; another image may want to
        # show a boot loader or a desktop.
        serial_only = inputs.kernel is not None or isinstance(config.image, BuiltinImage)
        image_boots = bool(inputs.drives) and not serial_only
        vga = "std" if image_boots and found.vga else "none"
    return [Option("display", config.display), Option("vga", vga)]


def root_ports(caps: Capabilities, found: Board) -> list[Option]:
    """Spare root ports `hotplug0…3` on machines with PCI Express."""
    if not found.pcie or "pcie-root-port" not in caps.devices:
        return []
    return [
        Option(
            "device",
            option_text("pcie-root-port", {"id": f"hotplug{n}", "bus": found.pcie, "chassis": n + 1}),
        )
        for n in range(_SPARE_ROOT_PORTS)
    ]


def _usual_machine(caps: Capabilities) -> str:
    usual = _USUAL.get(caps.target)
    if usual is not None and caps.machine(usual) is not None:
        return usual
    default = caps.default_machine
    if default is not None:
        return default.name
    raise StartError(
        f"{caps.binary} has no default machine type, and the VM names none",
        hint=f"set `machine:` to one of those that `{caps.binary} -machine help` lists",
    )


def _processors(config: VmConfig, found: Board, accelerator: str) -> list[Option]:
    options = []
    model = config.cpu.model
    if model is None and accelerator in ("kvm", "hvf"):
        model = "host"
    if model is None and found.cpu_max:
        model = "max"
    if model is not None:
        options.append(Option("cpu", model))
    options.append(Option("smp", str(config.cpu.count)))
    return options


def _memory(size: int) -> str:
    return f"{size // _MIB}M" if size % _MIB == 0 else f"{size}B"
