"""What builtin:linux is assembled from: a kernel, its modules, busybox and a few programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pytest_maqet.errors import StartError
from pytest_maqet.guests import apt_packages
from pytest_maqet.guests.apt_packages import Wanted

#: Programs taken along where the packages have them: place in the guest → places in the packages.
_PROGRAMS = {
    "usr/sbin/qemu-ga": ("usr/sbin/qemu-ga", "usr/bin/qemu-ga"),
    "usr/sbin/dropbear": ("usr/sbin/dropbear",),
}
_KERNEL_FOLLOW = r"^linux-(image|modules)-"


@dataclass(frozen=True)
class LinuxParts:
    """Files of the host that the guest is made of.

    `modules` is a lib/modules/VERSION directory. `programs` are dynamic or static executables by their place
    in the guest, `libraries` the shared objects that these may need, by name. `origin` says where all this
    came from, one line per part: it goes into the guest's manifest, and so into its identity.
    """

    kernel: Path
    busybox: Path
    modules: Path | None = None
    programs: Mapping[str, Path] = field(default_factory=dict)
    libraries: Mapping[str, Path] = field(default_factory=dict)
    origin: tuple[str, ...] = ()


def from_apt(directory: Path, report: Callable[[str], None]) -> LinuxParts:
    """Fetch all parts with apt into `directory`.

    The kernel is the distribution's smallest one for virtual machines. Raises `StartError`.
    """
    apt_packages.require_apt()
    report("asking apt for the packages")
    names = apt_packages.resolve(
        (
            Wanted(("linux-image-cloud-amd64", "linux-image-virtual", "linux-image-amd64"), _KERNEL_FOLLOW),
            Wanted(("busybox-static",), follow=r"^$"),
            Wanted(("qemu-guest-agent",)),
            Wanted(("dropbear-bin",), needed=False),
        ),
        directory,
    )
    packages = apt_packages.download(names, directory, report)
    root = directory / "root"
    return LinuxParts(
        kernel=_one(root, "boot/vmlinuz-*"),
        busybox=_first(root, ("usr/bin/busybox", "bin/busybox")),
        modules=_one(root, "lib/modules/*", "usr/lib/modules/*"),
        programs=_programs(root),
        libraries=shared_objects(root),
        origin=packages,
    )


def shared_objects(root: Path) -> dict[str, Path]:
    """All shared objects below `root`, by file name; links that lead out of `root` are left out."""
    top = root.resolve()
    found: dict[str, Path] = {}
    for path in sorted(root.rglob("*.so*")):
        real = path.resolve()
        if real.is_file() and real.is_relative_to(top):
            found.setdefault(path.name, real)
    return found


def _programs(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for place, candidates in _PROGRAMS.items():
        path = next((root / name for name in candidates if (root / name).is_file()), None)
        if path is not None:
            found[place] = path
    return found


def _first(root: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (root / name).is_file():
            return root / name
    raise StartError(f"the downloaded packages have no {names[0]}")


def _one(root: Path, *patterns: str) -> Path:
    for pattern in patterns:
        found = sorted(root.glob(pattern))
        if found:
            return found[-1]
    raise StartError(f"the downloaded packages have no {patterns[0]}")
