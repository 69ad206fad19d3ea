"""Unpacks a compressed x86 kernel on the host, so that each boot is spared it: a fifth of the boot under TCG.

QEMU starts an uncompressed kernel at its PVH entry point, on all its x86 boards; UEFI can't.

Facts: the kernel's Documentation/arch/x86/boot.rst (setup header, payload), docs of PVH in
include/xen/interface/elfnote.h (note 18 of "Xen" is the entry point), lz4's doc/lz4_Frame_format.md (legacy).
"""

from __future__ import annotations

import ctypes
import gzip
import lzma
import struct
from collections.abc import Callable

_SETUP_SECTORS, _HEADER_MAGIC, _PAYLOAD = 0x1F1, 0x202, 0x248
_PT_NOTE = 4
_PVH_NOTE = struct.pack("<I", 18) + b"Xen\0"


def unpacked(image: bytes) -> bytes | None:
    """The ELF file inside a bzImage, or None when QEMU could not start it, or there is no way to get at it.

    lz4 and zstd need the host's shared library of that name.
    """
    try:
        kernel = _payload(image)
    except (ValueError, struct.error, OSError, EOFError, lzma.LZMAError):
        return None
    return kernel if kernel is not None and _has_pvh_entry(kernel) else None


def _payload(image: bytes) -> bytes | None:
    if image[_HEADER_MAGIC : _HEADER_MAGIC + 4] != b"HdrS":
        return None
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    start = ((image[_SETUP_SECTORS] or 4) + 1) * 512 + offset
    # The build appends the size of the unpacked kernel; gzip has it at its end anyway.
    data = image[start : start + length - 4]
    (size,) = struct.unpack_from("<I", image, start + length - 4)
    for magic, unpack in _UNPACKERS.items():
        if data.startswith(magic):
            return unpack(data, size)
    return None


def _gunzip(data: bytes, size: int) -> bytes:
    return gzip.decompress(data + struct.pack("<I", size))


def _unxz(data: bytes, _: int) -> bytes:
    return lzma.LZMADecompressor().decompress(data)


def _unlz4(data: bytes, size: int) -> bytes | None:
    library = _library("lz4")
    if library is None:
        return None
    result = ctypes.create_string_buffer(size)
    done, at = 0, 4
    while at < len(data):
        (block,) = struct.unpack_from("<I", data, at)
        at += 4
        target = ctypes.byref(result, done)
        got = library.LZ4_decompress_safe(data[at : at + block], target, block, size - done)
        if got <= 0:
            return None
        done, at = done + got, at + block
    return result.raw if done == size else None


def _unzstd(data: bytes, size: int) -> bytes | None:
    library = _library("zstd")
    if library is None:
        return None
    result = ctypes.create_string_buffer(size)
    library.ZSTD_decompress.restype = ctypes.c_size_t
    got = library.ZSTD_decompress(result, ctypes.c_size_t(size), data, ctypes.c_size_t(len(data)))
    return result.raw if got == size else None


_UNPACKERS: dict[bytes, Callable[[bytes, int], bytes | None]] = {
    b"\x1f\x8b": _gunzip,
    b"\xfd7zXZ\0": _unxz,
    b"\x02\x21\x4c\x18": _unlz4,
    b"\x28\xb5\x2f\xfd": _unzstd,
}


def _library(name: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(f"lib{name}.so.1")
    except OSError:
        return None


def _has_pvh_entry(kernel: bytes) -> bool:
    if kernel[:6] != b"\x7fELF\x02\x01":
        return False
    (table,) = struct.unpack_from("<Q", kernel, 32)
    entry_size, count = struct.unpack_from("<HH", kernel, 54)
    for index in range(count):
        kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", kernel, table + index * entry_size)
        if kind == _PT_NOTE and _PVH_NOTE in kernel[offset : offset + size]:
            return True
    return False
