"""Raw QEMU arguments in maqet's forms, as options and values.

foo                                   -foo
foo: bar                              -foo bar
foo: {bar: 42, baz: on}               -foo bar=42,baz=on
display: gtk, zoom-to-fit: on         -display gtk,zoom-to-fit=on      (one entry with several keys)
device: {virtio-rng-pci: null, id: r} -device virtio-rng-pci,id=r
blockdev: {file: {driver: nbd}}       -blockdev file.driver=nbd
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterator
from typing import Any, NamedTuple

from pytest_maqet.config.paths import PathError, PathResolver
from pytest_maqet.config.places import MappingNode, Mark, SequenceNode
from pytest_maqet.config.problems import Problems, shown

#: Options that QEMU takes any number of times, each time adding something (QEMU manual, "Invocation", and the
#: handlers in system/vl.c that append). All others are taken once.
# fmt: off
REPEATABLE_OPTIONS = frozenset({
    "L", "acpitable", "add-fd", "audiodev", "blockdev", "chardev", "compat", "cxl-fixed-memory-window",
    "debugcon", "device", "dfilter", "drive", "fda", "fdb", "fsdev", "fw_cfg", "global", "hda", "hdb", "hdc",
    "hdd", "iscsi", "mon", "monitor", "mtdblock", "net", "netdev", "nic", "numa", "object", "option-rom",
    "parallel", "pflash", "plugin", "prom-env", "qmp", "qmp-pretty", "sd", "semihosting-config", "serial",
    "set", "smbios", "spice", "tpmdev", "trace", "usbdevice", "virtfs", "vnc", "watchdog",
})
#: Options whose whole value is a file, and keys inside a value that name one.
_FILE_OPTIONS = frozenset({
    "kernel", "initrd", "bios", "pflash", "dtb", "option-rom", "hda", "hdb", "hdc", "hdd", "cdrom", "fda",
    "fdb", "mtdblock", "sd",
})
# fmt: on
_FILE_KEYS = frozenset(("file", "filename", "path", "mem-path", "romfile", "sock", "loader"))
#: What would break the plugin's hold on the VM, with what to do instead.
_REFUSED = {
    "S": "every VM is started paused and set going by the plugin; use `vm.pause()`",
    "daemonize": "QEMU must stay a child of its keeper, or it could be left behind",
    "pidfile": "the VM's own directory has it; `vm.pid` is the process id",
    "nographic": "it takes away the serial port and the monitor; say `display: none`, which is the default",
    "enable-kvm": "the accelerator is tried before it is used; say `accel: kvm`",
    "incoming": "a VM's saved state is loaded by the plugin",
    "preconfig": "the machine would wait for commands the plugin does not send",
    "readconfig": "a file could take away what the plugin needs; say its content under `arguments:`",
    "writeconfig": "QEMU would write the file and not run",
    "help": "QEMU would print it and not run",
    "h": "QEMU would print it and not run",
    "version": "QEMU would print it and not run",
}
_OPTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

ARGUMENTS_SCHEMA = {
    "type": "array",
    "items": {
        "anyOf": [
            {"type": "string", "pattern": r"^-{0,2}[A-Za-z0-9][A-Za-z0-9_-]*$"},
            {"type": "object", "minProperties": 1},
        ]
    },
}


class Argument(NamedTuple):
    """One raw option: `option` without its dash; `value` as QEMU reads it, None for a bare flag."""

    option: str
    value: str | None = None


class _Unsayable(ValueError):
    """A value that no argument can have; `keys` lead to it."""

    def __init__(self, message: str, *keys: str) -> None:
        super().__init__(message)
        self.keys = keys


def option_of(entry: Any) -> str | None:
    """The option that an entry of `arguments:` gives, None when it has no right form."""
    if isinstance(entry, MappingNode) and entry:
        entry = next(iter(entry))
    return entry.lstrip("-") if isinstance(entry, str) else None


def read_arguments(
    node: Any,
    mark: Mark,
    key_path: str,
    problems: Problems,
    resolver: PathResolver,
    open_ones: Container[int] = (),
) -> list[Argument]:
    """The entries of an `arguments:` list as options, but for those numbered in `open_ones`.

    Faults go to `problems`.
    """
    if not isinstance(node, SequenceNode):
        problems.add(mark.value_place, key_path, f"found {shown(node)}", "allowed is a list of arguments")
        return []
    found: list[Argument] = []
    for index, entry in enumerate(node):
        if index in open_ones:
            continue
        path = f"{key_path}[{index}]"
        try:
            found.append(_argument(entry, node.marks[index], resolver))
        except _Unsayable as error:
            at = _mark_at(entry, node.marks[index], error.keys)
            problems.add(at.value_place, ".".join((path, *error.keys)), str(error))
    return found


def _mark_at(node: Any, mark: Mark, keys: tuple[str, ...]) -> Mark:
    """The mark of what `keys` lead to, as far as they lead."""
    for key in keys:
        if isinstance(node, MappingNode) and key in node:
            mark, node = node.marks[key], node[key]
        elif isinstance(node, SequenceNode):
            mark, node = node.marks[int(key)], node[int(key)]
    return mark


def _argument(entry: Any, mark: Mark, resolver: PathResolver) -> Argument:
    if isinstance(entry, str) or (entry is not None and mark.text is not None):
        return Argument(_option(mark.text or entry))
    if not isinstance(entry, MappingNode) or not entry:
        raise _Unsayable(
            f"found {shown(entry)}; allowed are a flag such as no-reboot, "
            "and a mapping such as {device: virtio-rng-pci}"
        )
    (first, value), *rest = entry.items()
    option = _option(first)
    parts: list[str] = []
    if isinstance(value, MappingNode):
        parts += _pairs(value, "", (first,), resolver)
    elif value is not None:
        text = _text(value, entry.marks[first], (first,))
        if option in _FILE_OPTIONS:
            text = _located(text, entry.marks[first], (first,), resolver)
        parts.append(text)
    others = MappingNode(entry.home)
    for key, other in rest:
        others.put(key, other, entry.marks[key])
    parts += _pairs(others, "", (), resolver)
    return Argument(option, ",".join(parts) if parts else None)


def _option(text: str) -> str:
    name = text.removeprefix("-").removeprefix("-")
    if not _OPTION.fullmatch(name):
        words = name.split(None, 1)
        advice = (
            f"; write {{{words[0]}: {words[1]}}}" if len(words) == 2 and _OPTION.fullmatch(words[0]) else ""
        )
        raise _Unsayable(f"found {shown(text)}, which is no name of an option{advice}")
    if name in _REFUSED:
        raise _Unsayable(f"the raw argument '-{name}' cannot be used: {_REFUSED[name]}; take it out")
    return name


def _pairs(mapping: MappingNode, prefix: str, keys: tuple[str, ...], resolver: PathResolver) -> Iterator[str]:
    """`key=value` for each entry; nested ones with dots between the keys, null as a bare word."""
    for key, value in mapping.items():
        mark = mapping.marks[key]
        if value is None:
            yield _doubled(prefix + key)
        elif isinstance(value, MappingNode):
            yield from _pairs(value, f"{prefix}{key}.", (*keys, key), resolver)
        elif isinstance(value, SequenceNode):
            # QEMU's spelling of a list: numbers as keys (docs/interop/qemu-qmp-ref, keyval syntax)
            numbered = MappingNode(value.home)
            for index, item in enumerate(value):
                numbered.put(str(index), item, value.marks[index])
            yield from _pairs(numbered, f"{prefix}{key}.", (*keys, key), resolver)
        else:
            text = _text(value, mark, (*keys, key))
            if key in _FILE_KEYS:
                text = _located(text, mark, (*keys, key), resolver)
            yield f"{_doubled(prefix + key)}={_doubled(text)}"


def _located(text: str, mark: Mark, keys: tuple[str, ...], resolver: PathResolver) -> str:
    try:
        return resolver.if_there(text, mark.source)
    except PathError as error:
        raise _Unsayable(str(error), *keys) from None


def _text(value: Any, mark: Mark, keys: tuple[str, ...]) -> str:
    """A scalar as it was written; booleans from Python as QEMU has them."""
    if mark.text is not None and not isinstance(value, str):
        return mark.text
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (SequenceNode, MappingNode)) or not isinstance(value, (str, int, float)):
        raise _Unsayable(f"found {shown(value)}; write one entry for each time the option is wanted", *keys)
    text = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    if "\0" in text:
        raise _Unsayable("a NUL character cannot be passed to a program", *keys)
    return text


def _doubled(text: str) -> str:
    """QEMU ends a value at a comma; one inside a value is written twice (QEMU manual, "Invocation")."""
    return text.replace(",", ",,")
