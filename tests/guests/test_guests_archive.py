"""The pieces of an initramfs: archives, programs' libraries, kernel modules, kernels."""

from __future__ import annotations

import gzip
import io
import lzma
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_maqet.guests import elf
from pytest_maqet.guests.cpio import CpioWriter
from pytest_maqet.guests.kernel_image import unpacked
from pytest_maqet.guests.kernel_modules import ModuleTree, alias_table, dependency_table


def sample_archive() -> bytes:
    output = io.BytesIO()
    with CpioWriter(output) as archive:
        archive.character_device("dev/console", 5, 1)
        archive.file("usr/bin/tool", b"#!/bin/sh\n", 0o755)
        archive.file("usr/bin/odd length", b"12345")
        archive.symlink("bin", "usr/bin")
        archive.directory("usr/bin")
    return output.getvalue()


def test_an_archive_is_read_by_cpio(tmp_path: Path) -> None:
    if shutil.which("cpio") is None:
        pytest.skip("cpio is not installed")
    listing = subprocess.run(
        ["cpio", "-itv", "--quiet"], input=sample_archive(), capture_output=True, check=True
    )
    lines = [line.split(None, 8) for line in listing.stdout.decode().splitlines()]
    assert [(line[0], line[-1]) for line in lines] == [
        ("drwxr-xr-x", "dev"),
        ("crw-------", "1970 dev/console"),
        ("drwxr-xr-x", "usr"),
        ("drwxr-xr-x", "usr/bin"),
        ("-rwxr-xr-x", "usr/bin/tool"),
        ("-rw-r--r--", "usr/bin/odd length"),
        ("lrwxrwxrwx", "bin -> usr/bin"),
    ]
    assert listing.stderr == b""


def test_an_archive_is_the_same_every_time() -> None:
    assert sample_archive() == sample_archive()


@pytest.mark.parametrize("name", ["/etc/passwd", "dev/console"])
def test_an_archive_takes_no_name_twice_and_no_absolute_one(name: str) -> None:
    with CpioWriter(io.BytesIO()) as archive:
        archive.file("dev/console", b"")
        with pytest.raises(ValueError, match="relative and new"):
            archive.file(name, b"")


def test_the_needs_of_a_real_program() -> None:
    needs = elf.requirements(Path(sys.executable).resolve().read_bytes())
    assert any(name.startswith("libc.so") for name in needs.libraries)
    assert needs.interpreter is not None
    assert needs.interpreter.startswith("/lib")


def test_a_missing_library_is_named() -> None:
    with pytest.raises(ValueError, match=r"needs \S+, which none of the packages has"):
        elf.closure([Path(sys.executable).resolve()], {})


@pytest.mark.parametrize("cut", [0, 5, 40, 64, 200, 5000])
def test_no_program_or_half_of_one(cut: int) -> None:
    whole = Path(sys.executable).resolve().read_bytes()
    with pytest.raises(ValueError, match=r"not a 64-bit|damaged"):
        elf.requirements(whole[:cut])


def module(folder: Path, name: str, *info: str, pack=lambda data: data) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(pack(b"\x7fELF\0" + b"".join(line.encode() + b"\0" for line in info)))


@pytest.fixture
def modules(tmp_path: Path) -> ModuleTree:
    top = tmp_path / "6.1.0-test"
    module(top / "kernel/a", "ring.ko", "license=GPL", "depends=")
    module(top / "kernel/a", "bus.ko.xz", "depends=ring", "alias=pci:v1*", pack=lzma.compress)
    module(top / "kernel/b", "my-disk.ko.gz", "alias=virtio:d2v*", "depends=bus,ring", pack=gzip.compress)
    (top / "modules.order").write_text("kernel/a/ring.ko\n")
    return ModuleTree(top)


def test_modules_come_with_what_they_need(modules: ModuleTree) -> None:
    assert modules.version == "6.1.0-test"
    chosen = modules.with_dependencies(["my-disk", "not-there", "ring"])
    assert list(chosen) == ["ring", "bus", "my_disk"], "in an order in which they can be loaded"
    assert chosen["bus"].data.startswith(b"\x7fELF"), "they are unpacked"


def test_tables_of_modules(modules: ModuleTree) -> None:
    chosen = modules.with_dependencies(["my-disk"])
    assert dependency_table(chosen) == (
        "kernel/a/ring.ko:\n"
        "kernel/a/bus.ko: kernel/a/ring.ko\n"
        "kernel/b/my-disk.ko: kernel/a/bus.ko kernel/a/ring.ko\n"
    )
    assert alias_table(chosen) == "alias pci:v1* bus\nalias virtio:d2v* my_disk\n"


def elf_kernel(note: bytes) -> bytes:
    header = b"\x7fELF\x02\x01".ljust(32, b"\0") + struct.pack("<Q", 64).ljust(22, b"\0")
    header += struct.pack("<HH", 56, 1).ljust(10, b"\0")
    program = struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, len(note), len(note), 4)
    return header + program + note


PVH = struct.pack("<III", 4, 4, 18) + b"Xen\0" + struct.pack("<I", 0x1000000)


def boot_image(kernel: bytes, payload: bytes) -> bytes:
    """A bzImage: two setup sectors, then `payload`."""
    setup = bytearray(1024)
    setup[0x1F1] = 1
    setup[0x202:0x206] = b"HdrS"
    payload = payload if payload.startswith(b"\x1f\x8b") else payload + struct.pack("<I", len(kernel))
    setup[0x248:0x250] = struct.pack("<II", 0, len(payload))
    return bytes(setup) + payload


@pytest.mark.parametrize("pack", [gzip.compress, lambda data: lzma.compress(data, check=lzma.CHECK_CRC32)])
def test_a_kernel_is_unpacked(pack) -> None:
    kernel = elf_kernel(PVH)
    assert unpacked(boot_image(kernel, pack(kernel))) == kernel


@pytest.mark.parametrize("tool", ["lz4", "zstd"])
def test_a_kernel_is_unpacked_with_the_hosts_libraries(tool: str, tmp_path: Path) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    kernel = elf_kernel(PVH + b"\0" * 9_000_000)
    (tmp_path / "kernel").write_bytes(kernel)
    option = ["-l"] if tool == "lz4" else []
    packed = subprocess.run(
        [tool, *option, "-c", tmp_path / "kernel"], capture_output=True, check=True
    ).stdout
    assert unpacked(boot_image(kernel, packed)) == kernel


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"no kernel at all",
        boot_image(elf_kernel(b"x"), gzip.compress(elf_kernel(b"x"))),
        boot_image(elf_kernel(PVH), gzip.compress(elf_kernel(PVH))[:-40]),
        boot_image(elf_kernel(PVH), b"\x02\x21\x4c\x18\xff\xff\xff\x7fnonsense"),
        boot_image(elf_kernel(PVH), b"\x28\xb5\x2f\xfdnonsense"),
        boot_image(elf_kernel(PVH), b"unknown packing"),
    ],
    ids=["empty", "no kernel", "no PVH entry", "cut", "bad lz4", "bad zstd", "unknown"],
)
def test_a_kernel_that_cannot_be_unpacked_is_used_as_it_is(image: bytes) -> None:
    assert unpacked(image) is None
