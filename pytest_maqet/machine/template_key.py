"""The key of a VM's template, and what of a configuration rules one out before anything is started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pytest_maqet.machine.drives import make_drives
from pytest_maqet.machine.plan import Plan
from pytest_maqet.machine.sockets import Sockets
from pytest_maqet.qemu.inputs import SerialPort
from pytest_maqet.qemu.quoting import option_text
from pytest_maqet.runs.vm_directory import VmDirectory
from pytest_maqet.templates.identity import machine_key

#: Raw arguments that say where the guest's memory lies, which has to be the template's file.
_MEMORY_OPTIONS = ("m", "numa", "mem-path", "mem-prealloc")
#: Stands for everything of a start that is another one each time.
_ANYWHERE = Path("/-")
_ANYBODY = "vm"


def why_not(plan: Plan) -> str | None:
    """Why this VM cannot be a clone, or None; QEMU may still find a reason of its own."""
    config = plan.config
    if plan.ram_id is None:
        return f"the memory of machine {config.machine} cannot lie in a file"
    for argument in config.arguments:
        said = f"{argument.option} {argument.value or ''}".strip()
        if argument.option in _MEMORY_OPTIONS or "memory-backend" in (argument.value or ""):
            return (
                f"the raw argument '-{said}' says where its memory lies, and that must be the template's file"
            )
    return None


def template_key(plan: Plan) -> str:
    """The key. Raises StartError for a file that is not there, ConfigError as `Plan.command_line`."""
    config = plan.config
    directory = VmDirectory(_ANYWHERE)
    drives = make_drives(config, plan.guest, directory, fresh=False, report=lambda _line: None)
    serial = tuple(SerialPort(name, 0, _ANYWHERE) for name in config.serial)
    agent = 0 if "agent" in plan.connect else None
    sockets = Sockets((0,), serial, agent, agent, agent)
    ram = plan.ram(_ANYWHERE, shared=False)
    inputs = replace(plan.inputs(drives, sockets, directory, ram=ram), forwards=False)
    return machine_key(
        config,
        _nameless(plan.command_line(inputs).arguments, config.name),
        qemu=plan.caps.build,
        guest=plan.guest.identity if plan.guest is not None else None,
        accelerator=plan.accelerator,
    )


def _nameless(arguments: Sequence[str], name: str) -> list[str]:
    """A command line without the VM's name: VMs that differ in nothing else share a template."""
    ours = option_text(None, {"guest": name})
    anybodys = option_text(None, {"guest": _ANYBODY})
    return [
        argument.replace(ours, anybodys, 1) if before == "-name" else argument
        for before, argument in zip(("", *arguments), arguments, strict=False)
    ]
