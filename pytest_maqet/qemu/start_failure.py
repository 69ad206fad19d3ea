"""Why QEMU did not start: what it said, what was asked of it, and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from pytest_maqet.errors import StartError
from pytest_maqet.qemu.capabilities import Capabilities, capabilities
from pytest_maqet.qemu.command_line import CommandLine
from pytest_maqet.qemu.quoting import split_option
from pytest_maqet.runs.exit_status import ended_by_somebody

if TYPE_CHECKING:
    from pytest_maqet.runs.exit_status import Exit

#: Signal numbers as Linux has them on every architecture QEMU runs on but MIPS (signal(7)).
_SIGBUS = 7
_SIGKILL = 9
#: Lines of QEMU's output and of the console that go into the message.
_LINES = 20


class _Cause(NamedTuple):
    """A known cause: what QEMU's output matches, and the hint for it."""

    pattern: str
    hint: str | Callable[[CommandLine, re.Match[str]], str]


def explain(command_line: CommandLine, exit: Exit, stderr: str, console_tail: str) -> StartError:  # noqa: A002
    """The error for a QEMU that ended before its start was verified.

    Its message has how QEMU ended, what it said, the last lines of the console and the command line to paste;
    its hint tells what to do where the cause is a known one.
    """
    said = _tail(stderr)
    parts = [
        f"{_who(command_line)}QEMU did not start: {exit.reason}; it said " + ("this:" if said else "nothing")
    ]
    parts += [f"  {line}" for line in said]
    console = _tail(console_tail)
    if console:
        parts += ["the guest's console ended with:", *(f"  {line}" for line in console)]
    parts += ["the command line was:", *(f"  {line}" for line in command_line.lines().splitlines())]
    passing = ended_by_somebody(exit.code, exit.signal, stderr)
    return StartError("\n".join(parts), passing=passing, hint=_hint(command_line, exit, stderr))


def _who(command_line: CommandLine) -> str:
    """`VM 'web': `, from what QEMU was told to call it."""
    arguments = command_line.arguments
    said = arguments[arguments.index("-name") + 1] if "-name" in arguments else ""
    names = [value for key, value in split_option(said) if key in ("guest", None) and value]
    return f"VM '{names[0]}': " if names else ""


def _tail(text: str) -> list[str]:
    # A guest may write anything on its console; none of it may act on the reader's terminal.
    plain = re.sub(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-_])", "", text)
    lines = ["".join(one if one.isprintable() else "\ufffd" for one in line) for line in plain.splitlines()]
    return [line.rstrip() for line in lines if line.strip()][-_LINES:]


def _hint(command_line: CommandLine, exit_: Exit, stderr: str) -> str | None:
    for cause in _CAUSES:
        found = re.search(cause.pattern, stderr, re.IGNORECASE)
        if found:
            return cause.hint if isinstance(cause.hint, str) else cause.hint(command_line, found)
    if exit_.signal == _SIGBUS:
        return (
            "the guest's memory lies on a filesystem that is full, often a small /dev/shm in a container; "
            "make it larger (--shm-size), or give the VM less `memory:`"
        )
    if exit_.signal == _SIGKILL:
        return "something killed it; `dmesg | grep -i oom` tells whether the host ran out of memory"
    if exit_.code == 0:
        return "QEMU ended as if asked to: is there an argument as `help` or `version` under `arguments:`?"
    return None


def _capabilities(command_line: CommandLine) -> Capabilities | None:
    try:
        return capabilities(command_line.binary)
    except StartError:
        return None


def _nearest(wanted: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(wanted, sorted(names), n=3, cutoff=0.5)
    return f"; nearest: {', '.join(near)}" if near else ""


def _machine(command_line: CommandLine, _: re.Match[str]) -> str:
    arguments = command_line.arguments
    wanted = arguments[arguments.index("-machine") + 1].partition(",")[0] if "-machine" in arguments else ""
    caps = _capabilities(command_line)
    near = _nearest(wanted, caps.machine_names) if caps else ""
    binary = command_line.binary
    return f"{binary} has no machine type {wanted!r}{near}; all: `{binary} -machine help`"


def _option(command_line: CommandLine, found: re.Match[str]) -> str:
    caps = _capabilities(command_line)
    version = f" {caps.version_text}" if caps else ""
    near = _nearest(found[1], caps.flags) if caps else ""
    return f"QEMU{version} has no option -{found[1]}{near}; correct it under `arguments:`"


def _device(command_line: CommandLine, found: re.Match[str]) -> str:
    caps = _capabilities(command_line)
    near = _nearest(found[1], caps.devices) if caps else ""
    return (
        f"this QEMU has no device {found[1]!r}{near}; all: `{command_line.binary} -device help` "
        "(distributions put some into packages of their own, as qemu-system-gui and qemu-system-modules-…)"
    )


def _property(command_line: CommandLine, found: re.Match[str]) -> str:
    model = found[1].rpartition(".")[0]
    return f"see `{command_line.binary} -device {model},help` for the properties it has"


_CAUSES: tuple[_Cause, ...] = (
    _Cause(r"unsupported machine type", _machine),
    _Cause(r"-([\w-]+): invalid option", _option),
    _Cause(r"'([^']+)' is not a valid device model name", _device),
    _Cause(r"property '([^']+)' not found", _property),
    _Cause(
        r"incompatible|mutually exclusive|cannot be used (?:together )?with|conflict",
        "two options exclude each other: take one of them out of `arguments:`, or set it by its own key",
    ),
    _Cause(
        r"failed to get (?:shared )?\"?\w*\"? ?lock|another process using the image",
        "another process, perhaps a VM started by hand, has the image open for writing; end it "
        "(`fuser -v IMAGE` names it). Images are opened read-only here and may be shared by readers only",
    ),
    _Cause(
        r"could not access kvm kernel module: permission denied",
        "/dev/kvm is not yours to open: `sudo usermod -aG kvm $USER`, log in again, or use --maqet-accel=tcg",
    ),
    _Cause(
        r"kvm kernel module|failed to initialize kvm|kvm_\w+: |failed to set MSR|KVM_\w+ failed",
        "KVM does not work here; use --maqet-accel=auto, which tries it first, or =tcg",
    ),
    _Cause(
        r"cannot set up guest memory|cannot allocate memory|failed to allocate memory",
        "the host has not enough free memory: give the VM less `memory:`, or run fewer VMs at once",
    ),
    _Cause(
        r"could not load .*(?:bios|rom|firmware)|failed to find romfile|bios.* not found",
        "a firmware file is missing: `apt install seabios ipxe-qemu ovmf` (Debian) or `dnf install "
        "seabios-bin ipxe-roms-qemu edk2-ovmf` (Fedora), or correct `firmware:`",
    ),
    _Cause(
        r"no slot/function available|PCI: slot \d+ function \d+ (?:not available|already in use)",
        "the machine's PCI bus is full: use `interface: scsi`, which holds 255 disks on one controller",
    ),
    _Cause(
        r"no '[^']+' bus found for device",
        "this machine type has no such bus: use machine q35, or a device that fits the machine",
    ),
    _Cause(r"invalid smp cpus|max cpus supported", "give the VM fewer processors (`cpu: {count: N}`)"),
    _Cause(r"unable to find cpu model|invalid cpu (?:type|model)", "list the models with `-cpu help`"),
    _Cause(
        r"boot ?index .*(?:already|in use|duplicate)|two devices with same boot index",
        "drives of `storage:` have the boot indexes 1, 2, … in order; give another one under `arguments:`",
    ),
    _Cause(
        r"duplicate (?:device )?id|duplicate nodes|(?:device|id|node) .* already (?:exists|in use)",
        "that name is used twice; the plugin's own are qmp0…, serial0…, agent, net0…, hotplug0…3, rng, "
        "panic, generation, ports, scsi0, sata0…, disk-NAME, and NAME for the node of each storage",
    ),
    _Cause(
        r"gtk initialization failed|cannot open display|could not initialize sdl|unable to init server",
        "there is no desktop to show the screen on; leave `display:` out (it is `none`)",
    ),
    _Cause(
        r"module ui-\S+ not found|does not accept value '(?:gtk|sdl|spice-app|curses|dbus)'",
        "this QEMU has no such display, or it is in a package of its own (Debian: qemu-system-gui)",
    ),
    _Cause(
        r"host forwarding rule",
        "the host port is taken or needs root; leave the host port to the plugin (`forward:`)",
    ),
    _Cause(
        r"error while loading shared libraries",
        "the QEMU installation is incomplete: install it again with its dependencies",
    ),
    _Cause(
        r"image is not in \w+ format|invalid magic|unknown driver|could not read (?:l1|image)",
        "the image is damaged or of another format: check it with `qemu-img check` and `qemu-img info`",
    ),
    _Cause(r"no space left on device", "a disk is full: `df` on the run directory and on the image's"),
    _Cause(
        r"permission denied",
        "QEMU runs as you do: make the file readable for yourself, and its directory searchable",
    ),
    _Cause(r"no such file or directory", "a file named above does not exist; correct its path"),
)
