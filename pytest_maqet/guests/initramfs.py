"""Writes the initramfs of builtin:linux: our own files, busybox, programs and their libraries, modules."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from pytest_maqet.errors import StartError
from pytest_maqet.guests import elf
from pytest_maqet.guests.cpio import CpioWriter
from pytest_maqet.guests.kernel_modules import ModuleTree, alias_table, dependency_table
from pytest_maqet.guests.linux_parts import LinuxParts

#: Our own files of the guest, laid out as in the guest.
ROOT_FILES = Path(__file__).with_name("linux")
#: The program that puts a resumed guest right; its source is beside it.
WAKE_HELPER = Path(__file__).with_name("wake") / "maqet-wake"
#: The program that runs commands for the host; its source is beside it.
EXEC_HELPER = Path(__file__).with_name("exec") / "maqet-exec"

_DIRECTORIES = (
    "dev",
    "etc",
    "mnt",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr/local/bin",
    "var/log",
    "var/run",
)

# Loaded in this order before anything is looked for: every VM of ours has these devices.
_BUSES = ("virtio_pci", "evdev")
# Loaded by the guest when it sees such a device, or when a file system or a program asks for one.
_DRIVERS = (
    *("virtio_blk", "virtio_net", "virtio_console", "virtio_rng", "virtio_balloon", "virtio_scsi"),
    *(
        "virtio_mmio",
        "virtio_input",
        "virtiofs",
        "9p",
        "9pnet_virtio",
        "vmw_vsock_virtio_transport",
        "vmgenid",
    ),
    *("sd_mod", "sr_mod", "ahci", "ata_piix", "nvme", "e1000", "e1000e", "button", "i6300esb"),
    *("pvpanic_mmio", "pvpanic_pci", "pvpanic", "qemu_fw_cfg"),
    *("ext4", "vfat", "nls_cp437", "nls_iso8859_1", "nls_ascii", "nls_utf8", "isofs", "squashfs"),
    *("overlay", "fuse", "loop", "af_packet", "tun"),
)


def write_initramfs(parts: LinuxParts, output: BinaryIO) -> None:
    """Write the archive; the same parts give the same bytes. Raises `StartError` when a part is unusable."""
    with CpioWriter(output) as archive:
        for name in _DIRECTORIES:
            archive.directory(name, 0o1777 if name == "tmp" else 0o700 if name == "root" else 0o755)
        # The kernel opens the console before anything is mounted.
        archive.character_device("dev/console", 5, 1)
        archive.character_device("dev/null", 1, 3, 0o666)
        taken = _add_own_files(archive)
        archive.file("sbin/maqet-wake", WAKE_HELPER.read_bytes(), 0o755)
        archive.file("sbin/maqet-exec", EXEC_HELPER.read_bytes(), 0o755)
        _add_busybox(archive, parts.busybox, taken)
        _add_programs(archive, parts)
        if parts.modules is not None:
            _add_modules(archive, parts.modules)


def _add_own_files(archive: CpioWriter) -> set[str]:
    taken: set[str] = set()
    for path in sorted(ROOT_FILES.rglob("*")):
        if not path.is_file():
            continue
        name = path.relative_to(ROOT_FILES).as_posix()
        data = path.read_bytes()
        # A wheel does not keep modes: what begins like a script is one.
        archive.file(name, data, 0o755 if data.startswith((b"#!", b"\x7fELF")) else 0o644)
        taken.add(PurePosixPath(name).name)
    return taken


def _add_busybox(archive: CpioWriter, busybox: Path, taken: set[str]) -> None:
    archive.file("bin/busybox", busybox.read_bytes(), 0o755)
    archive.symlink("init", "bin/busybox")
    for name in _applets(busybox):
        if PurePosixPath(name).name not in {*taken, "busybox"}:
            archive.symlink(name, "/bin/busybox")


def _applets(busybox: Path) -> Iterator[str]:
    """The places of all commands that this busybox has, without a leading slash."""
    try:
        # A package's file is executable; one that the user named may not be, so it is run through no shell.
        done = subprocess.run(
            [busybox, "--list-full"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise StartError(
            f"{busybox} does not run on this host: {error}",
            hint="a static busybox is needed, such as the one of the package busybox-static",
        ) from error
    yield from sorted(line.lstrip("/") for line in done.stdout.splitlines() if line.strip())


def _add_programs(archive: CpioWriter, parts: LinuxParts) -> None:
    for name, path in parts.programs.items():
        archive.file(name, path.read_bytes(), 0o755)
    try:
        libraries = elf.closure(parts.programs.values(), parts.libraries)
    except ValueError as error:
        raise StartError(f"the programs of builtin:linux cannot be put together: {error}") from error
    for name, path in sorted(libraries.items()):
        # Debian's loader looks here first; an interpreter has an absolute path of its own.
        place = name.lstrip("/") if name.startswith("/") else f"lib/x86_64-linux-gnu/{name}"
        archive.file(place, path.read_bytes(), 0o755)


def _add_modules(archive: CpioWriter, directory: Path) -> None:
    tree = ModuleTree(directory)
    modules = tree.with_dependencies((*_BUSES, *_DRIVERS))
    top = f"lib/modules/{tree.version}"
    for module in modules.values():
        archive.file(f"{top}/{module.path}", module.data)
    archive.file(f"{top}/modules.dep", dependency_table(modules).encode())
    archive.file(f"{top}/modules.alias", alias_table(modules).encode())
    archive.file("etc/modules", "".join(f"{name}\n" for name in _BUSES if name in modules).encode())
