"""Which QEMU program runs a VM."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_maqet.errors import StartError

if TYPE_CHECKING:
    from pytest_maqet.config import VmConfig

#: Debian's and Fedora's package of a target's program, where it is not named after the target
#: (packages.debian.org, packages.fedoraproject.org).
_DEBIAN = {
    "x86_64": "qemu-system-x86",
    "i386": "qemu-system-x86",
    "aarch64": "qemu-system-arm",
    "arm": "qemu-system-arm",
    "ppc": "qemu-system-ppc",
    "ppc64": "qemu-system-ppc",
    "mips": "qemu-system-mips",
    "mipsel": "qemu-system-mips",
    "mips64": "qemu-system-mips",
    "mips64el": "qemu-system-mips",
    "sparc": "qemu-system-sparc",
    "sparc64": "qemu-system-sparc",
}
_FEDORA = {"x86_64": "qemu-system-x86", "i386": "qemu-system-x86", "riscv64": "qemu-system-riscv"}
#: Where Red Hat's distributions put their only QEMU, off the PATH.
_RED_HAT = Path("/usr/libexec/qemu-kvm")


def find_binary(config: VmConfig) -> Path:
    """The QEMU program of a VM: its `binary:`, else `qemu-system-<arch>` on the PATH.

    Raises `StartError` with the package to install when there is none, or when the one named can't be run.
    """
    if config.binary is not None:
        return _named(config.binary, config)
    wanted = f"qemu-system-{config.arch}"
    found = shutil.which(wanted)
    if found is not None:
        return Path(found)
    if config.arch == os.uname().machine and os.access(_RED_HAT, os.X_OK):
        return _RED_HAT
    raise StartError(
        f"VM '{config.name}' needs {wanted}, and there is none on the PATH",
        hint=f"{install_hint(config.arch)}; or name the program with `binary:`",
    )


def install_hint(arch: str) -> str:
    """How to get the QEMU of a target architecture on the common distributions."""
    debian = _DEBIAN.get(arch, "qemu-system-misc")
    fedora = _FEDORA.get(arch, f"qemu-system-{arch}")
    return (
        f"install it: `apt install {debian} qemu-utils` (Debian, Ubuntu) "
        f"or `dnf install {fedora} qemu-img` (Fedora)"
    )


def _named(binary: str, config: VmConfig) -> Path:
    where = f"VM '{config.name}': binary {binary!r}"
    if os.sep not in binary:
        found = shutil.which(binary)
        if found is None:
            raise StartError(f"{where} is not on the PATH", hint=install_hint(config.arch))
        return Path(found)
    path = Path(binary).expanduser()
    if path.is_dir():
        raise StartError(f"{where} is a directory; a QEMU program is wanted")
    if not path.exists():
        raise StartError(
            f"{where} does not exist", hint="correct the path, or leave `binary:` out to search the PATH"
        )
    if not os.access(path, os.X_OK):
        raise StartError(f"{where} is not executable", hint=f"chmod +x {path}")
    return path
