"""Kernel modules of a distribution's kernel: which are there, what each needs, which devices each drives.

Everything is read from the modules' own `.modinfo` text (`depends=`, `alias=`), so that neither depmod nor
root is needed. Compressed modules (`.xz`, `.gz`, `.zst`) are unpacked: the guest then loads them faster.
"""

from __future__ import annotations

import gzip
import lzma
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_maqet.errors import StartError

_SUFFIX = re.compile(r"\.ko(\.xz|\.gz|\.zst)?$")
_MODINFO = re.compile(rb"(?:(?<=\0)|^)(depends|alias|softdep)=([^\0]*)\0")


@dataclass(frozen=True)
class KernelModule:
    """One module: its name (with `_`), its path below lib/modules/VERSION, its bytes unpacked."""

    name: str
    path: str
    data: bytes
    depends: tuple[str, ...]
    aliases: tuple[str, ...]


class ModuleTree:
    """The modules below one `lib/modules/VERSION` directory, read on demand."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[str, Path] = {}
        for path in sorted(root.rglob("*.ko*")):
            if _SUFFIX.search(path.name):
                self._files[_name(path.name)] = path
        self._read: dict[str, KernelModule] = {}

    @property
    def version(self) -> str:
        """The kernel's version, as `uname -r` will say it."""
        return self._root.name

    def __contains__(self, name: str) -> bool:
        return _name(name) in self._files

    def module(self, name: str) -> KernelModule:
        """The module `name`; KeyError if there is none."""
        name = _name(name)
        if name not in self._read:
            path = self._files[name]
            data = _unpack(path)
            info: dict[bytes, list[str]] = {}
            for key, value in _MODINFO.findall(data):
                info.setdefault(key, []).append(value.decode(errors="replace"))
            depends = tuple(_name(n) for line in info.get(b"depends", []) for n in line.split(",") if n)
            relative = _SUFFIX.sub(".ko", str(path.relative_to(self._root)))
            self._read[name] = KernelModule(name, relative, data, depends, tuple(info.get(b"alias", [])))
        return self._read[name]

    def with_dependencies(self, names: Iterable[str]) -> dict[str, KernelModule]:
        """Those of `names` that exist, and all they need, in an order in which they can be loaded."""
        ordered: dict[str, KernelModule] = {}

        def add(name: str) -> None:
            if name in ordered or name not in self:
                return
            module = self.module(name)
            for needed in module.depends:
                add(needed)
            ordered[name] = module

        for name in names:
            add(_name(name))
        return ordered


def dependency_table(modules: Mapping[str, KernelModule]) -> str:
    """The text of `modules.dep` for `modules`, which are in an order in which they can be loaded.

    A line holds a module's path, then the paths of all it needs; they are loaded from the last to the first.
    """
    needs: dict[str, set[str]] = {}
    lines: list[str] = []
    for name, module in modules.items():
        direct = [needed for needed in module.depends if needed in needs]
        needs[name] = set(direct).union(*(needs[needed] for needed in direct))
        paths = [modules[needed].path for needed in reversed(needs) if needed in needs[name]]
        lines.append(f"{module.path}: {' '.join(paths)}".rstrip() + "\n")
    return "".join(lines)


def alias_table(modules: Mapping[str, KernelModule]) -> str:
    """The text of `modules.alias`: which module drives which device."""
    return "".join(f"alias {alias} {m.name}\n" for m in modules.values() for alias in m.aliases)


def _name(file_name: str) -> str:
    return _SUFFIX.sub("", file_name).replace("-", "_")


def _unpack(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        zstd = shutil.which("zstd")
        if zstd is None:
            raise StartError(
                f"the kernel module {path.name} is compressed with zstd, which is not installed",
                hint="apt-get install zstd",
            )
        return subprocess.run([zstd, "-dc"], input=data, stdout=subprocess.PIPE, check=True).stdout
    return data
