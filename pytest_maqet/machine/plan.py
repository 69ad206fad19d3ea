"""What a VM's configuration comes to on this host: program, accelerator, embedded guest, channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pytest_maqet.config import BuiltinImage, VmConfig
from pytest_maqet.guests.builtin import BuiltinGuest, builtin_guest
from pytest_maqet.machine.host import Host
from pytest_maqet.machine.sockets import Sockets
from pytest_maqet.qemu import accelerator
from pytest_maqet.qemu.binary import find_binary
from pytest_maqet.qemu.capabilities import Capabilities, capabilities
from pytest_maqet.qemu.command_line import CommandLine, build
from pytest_maqet.qemu.inputs import Drive, Inputs, Ram
from pytest_maqet.qemu.machine_options import machine_text
from pytest_maqet.runs.vm_directory import VmDirectory


@dataclass(frozen=True)
class Plan:
    """Everything about a VM's starts that is the same for each of them."""

    config: VmConfig
    caps: Capabilities
    accelerator: str
    guest: BuiltinGuest | None

    @property
    def connect(self) -> tuple[str, ...]:
        """The channels in the order to try: those the YAML names, and that a built-in guest has."""
        if self.guest is None:
            return tuple(self.config.guest.connect)
        return tuple(name for name in self.config.guest.connect if name in self.guest.connect)

    @property
    def ram_id(self) -> str | None:
        """What this machine calls its memory in saved states; None where it cannot lie in a file of ours."""
        machine = self.caps.machine(machine_text(self.config, self.caps).partition(",")[0])
        return machine.ram_id if machine is not None else None

    def ram(self, file: Path, *, shared: bool) -> Ram:
        """The guest's memory in a file, under the name that it has without one."""
        assert self.ram_id is not None, "such a machine is never frozen"
        return Ram(file, self.config.memory, shared, self.ram_id)

    @property
    def default_ready(self) -> str | None:
        """What a built-in guest prints when it is ready."""
        return self.guest.ready if self.guest is not None else None

    def inputs(
        self, drives: tuple[Drive, ...], sockets: Sockets, directory: VmDirectory, *, ram: Ram | None = None
    ) -> Inputs:
        """The inputs of one start that boots."""
        kernel, initrd, append = self._boot_files()
        return Inputs(
            drives=drives,
            kernel=kernel,
            initrd=initrd,
            append=append,
            monitors=sockets.monitors,
            serial=sockets.serial,
            agent=sockets.agent,
            wake=sockets.wake,
            exec=sockets.exec,
            pidfile=directory.qemu_pid_file,
            ram=ram,
            # Guests of ours are told by maqet-wake; the detour over ACPI would cost each clone 10 ms more.
            generation_id=self.guest is None,
        )

    def command_line(self, inputs: Inputs) -> CommandLine:
        """QEMU's command line for one start; raises what `build` raises."""
        return build(self.config, self.caps, self.accelerator, inputs)

    def _boot_files(self) -> tuple[Path | None, Path | None, str | None]:
        config, guest = self.config, self.guest
        kernel, initrd, append = config.kernel, config.initrd, config.append
        if guest is not None and kernel is None:
            kernel = guest.kernel
            initrd = initrd or guest.initrd
            if guest.append:
                append = f"{guest.append} {append}" if append else guest.append
        return kernel, initrd, append


def plan_for(config: VmConfig, host: Host) -> Plan:
    """Find what the VM needs; an embedded guest is built where it is not there yet.

    Raises StartError for a missing program, an accelerator that does not work, a guest that cannot be built.
    """
    binary = find_binary(config)
    caps = capabilities(binary)
    accel = accelerator.choose(binary, caps, config.accel or host.accel).name
    return Plan(config, caps, accel, embedded_guest(config, host.report))


def embedded_guest(config: VmConfig, report: Callable[[str], None]) -> BuiltinGuest | None:
    """The embedded guest that `image:` names, or None."""
    if not isinstance(config.image, BuiltinImage):
        return None
    return builtin_guest(config.image.name, config.arch, report=report)
