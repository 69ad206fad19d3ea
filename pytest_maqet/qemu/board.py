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
from dataclasses import dataclass
from pathlib import Path

from pytest_maqet.qemu.capabilities import Capabilities
from pytest_maqet.qemu.kept_answers import digest, keep_answer, only_one_asks, read_answer
from pytest_maqet.qemu.question import QuestionError, ask

_KIND = "qemu-boards"

_known: dict[str, Board] = {}
_known_lock = threading.Lock()


@dataclass(frozen=True)
class Board:
    """The buses of a machine as name → type ("pcie.0" → "PCIE"), and which extras it takes.

    `vmgenid`: it can have a generation id; `cpu_max`: it takes the CPU model `max`.
    """

    buses: Mapping[str, str]
    vmgenid: bool
    cpu_max: bool

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
    its options; one that can't be created even so has no buses we know of, and gets no device it was not told.
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
        keep_answer(
            _KIND, key, {"buses": dict(found.buses), "vmgenid": found.vmgenid, "cpu_max": found.cpu_max}
        )
        return found


def _asked(caps: Capabilities, machine: str) -> Board:
    name = machine.partition(",")[0]
    for text in dict.fromkeys((machine, name)):
        for vmgenid, cpu_max in ((True, True), (False, True), (True, False), (False, False)):
            buses = _buses(caps, text, vmgenid=vmgenid, cpu_max=cpu_max)
            if buses is not None:
                return Board(buses=buses, vmgenid=vmgenid and "vmgenid" in caps.devices, cpu_max=cpu_max)
    return Board(buses={}, vmgenid=False, cpu_max=False)


def _buses(caps: Capabilities, machine: str, *, vmgenid: bool, cpu_max: bool) -> dict[str, str] | None:
    wanted = ["-machine", machine]
    if "tcg" in caps.accelerators:
        wanted += ["-accel", "tcg"]
    if cpu_max:
        wanted += ["-cpu", "max"]
    if vmgenid and "vmgenid" in caps.devices:
        wanted += ["-device", "vmgenid,guid=auto"]
    return _read_tree(caps.binary, wanted)


def _read_tree(binary: Path, arguments: Sequence[str]) -> dict[str, str] | None:
    command = ("human-monitor-command", {"command-line": "info qtree"})
    try:
        (tree,) = ask(binary, arguments, [command])
    except QuestionError:
        return None
    return dict(re.findall(r"^ *bus: (\S+)\n *type (\S+)", str(tree).replace("\r", ""), re.MULTILINE))


def _kept(key: str) -> Board | None:
    answer = read_answer(_KIND, key)
    if answer is None:
        return None
    buses, vmgenid, cpu_max = (answer.get(name) for name in ("buses", "vmgenid", "cpu_max"))
    if not isinstance(buses, dict) or not isinstance(vmgenid, bool) or not isinstance(cpu_max, bool):
        return None
    return Board(buses=buses, vmgenid=vmgenid, cpu_max=cpu_max)
