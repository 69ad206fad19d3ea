"""What a machine type has to plug devices into, found by creating the machine once and looking.

QEMU has no list of the buses of a machine type, and a table of ours would be wrong for the next board or for
`microvm,pcie=on`. So the machine is created (never run) with the things we would like to add, its buses are
read from `info qtree`, and what the machine refuses is left out. The answer is kept with the program's
capabilities; asking takes some 0.1 s.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from pytest_maqet.qemu.capabilities import Capabilities
from pytest_maqet.qemu.kept_answers import digest, keep_answer, only_one_asks, read_answer
from pytest_maqet.qemu.question import QuestionError, ask

_KIND = "qemu-boards"

#: What we would like to add to every machine, with the options that try it.
_EXTRAS = {
    "vmgenid": ("-device", "vmgenid,guid=auto"),
    "cpu_max": ("-cpu", "max"),
    "vga": ("-vga", "std"),
}

_known: dict[str, Board] = {}
_known_lock = threading.Lock()


@dataclass(frozen=True)
class Board:
    """The buses of a machine as name → type ("pcie.0" → "PCIE"), and which extras it takes.

    `vmgenid`: it can have a generation id; `cpu_max`: it takes the CPU model `max`; `vga`: it makes a
    graphics card of `-vga std`.
    """

    buses: Mapping[str, str]
    vmgenid: bool = False
    cpu_max: bool = False
    vga: bool = False

    @property
    def pcie(self) -> str | None:
        """The name of the machine's PCI Express root bus, where it has one."""
        return self._first("PCIE")

    @property
    def pci(self) -> str | None:
        """The name of a PCI bus of either kind, where there is one."""
        return self.pcie or self._first("PCI")

    @property
    def isa(self) -> str | None:
        """The name of the ISA bus, where there is one."""
        return self._first("ISA")

    @property
    def ide(self) -> tuple[str, ...]:
        """The names of the machine's own IDE or SATA buses, in order."""
        return tuple(sorted(name for name, kind in self.buses.items() if kind == "IDE"))

    @property
    def virtio(self) -> str | None:
        """The ending of virtio devices' names here: `pci`, `ccw`, `device` (MMIO), or None without virtio."""
        if self.pci:
            return "pci"
        if self._first("virtual-css-bus"):
            return "ccw"
        return "device" if self._first("virtio-mmio-bus") else None

    def _first(self, kind: str) -> str | None:
        return next((name for name, found in sorted(self.buses.items()) if found == kind), None)


def board(caps: Capabilities, machine: str) -> Board:
    """The board of `machine`: the text of a `-machine` option, as "q35" or "microvm,pcie=on".

    A machine that can't be created by itself, as one that wants a memory backend, is asked for without
    its options; one that can't be created even so has no buses we know of, and gets no extra devices.
    """
    key = digest(caps.build, str(caps.binary), machine)
    with _known_lock:
        if key not in _known:
            _known[key] = _kept(key) or _asked_and_kept(caps, machine, key)
        return _known[key]


def _asked_and_kept(caps: Capabilities, machine: str, key: str) -> Board:
    with only_one_asks(_KIND, key):
        kept = _kept(key)
        if kept is not None:
            return kept
        found = _asked(caps, machine)
        keep_answer(_KIND, key, asdict(found))
        return found


def _asked(caps: Capabilities, machine: str) -> Board:
    name = machine.partition(",")[0]
    for text in dict.fromkeys((machine, name)):
        tree = _tree(caps, text, ())
        if tree is not None:
            return _board(caps, text, tree)
    return Board(buses={})


def _board(caps: Capabilities, machine: str, bare: str) -> Board:
    # Together first, which is one question for the usual machines; each alone where that is refused.
    tree = _tree(caps, machine, tuple(_EXTRAS))
    trees = {name: tree or _tree(caps, machine, (name,)) for name in _EXTRAS}
    buses: dict[str, str] = dict(re.findall(r"^ *bus: (\S+)\n *type (\S+)", bare, re.MULTILINE))
    return Board(
        buses=buses,
        vmgenid="vmgenid" in caps.devices and trees["vmgenid"] is not None,
        cpu_max=trees["cpu_max"] is not None,
        vga="dev: VGA" in (trees["vga"] or ""),
    )


def _tree(caps: Capabilities, machine: str, extras: Sequence[str]) -> str | None:
    """The machine's devices as `info qtree` shows them, or None when QEMU refuses to make it."""
    arguments = ["-machine", machine]
    if "tcg" in caps.accelerators:
        arguments += ["-accel", "tcg"]
    for extra in extras:
        arguments += _EXTRAS[extra]
    command = ("human-monitor-command", {"command-line": "info qtree"})
    try:
        (tree,) = ask(caps.binary, arguments, [command])
    except QuestionError:
        return None
    return str(tree).replace("\r", "")


def _kept(key: str) -> Board | None:
    answer = read_answer(_KIND, key)
    try:
        found = None if answer is None else Board(**answer)
    except TypeError:
        return None  # kept by another version of this package, or damaged
    if found is None or not isinstance(found.buses, dict):
        return None
    return found
