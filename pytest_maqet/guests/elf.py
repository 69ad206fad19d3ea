"""Which shared libraries an ELF program needs, and which interpreter starts it.

Only what is needed to put a distribution's dynamic programs into an initramfs: 64-bit little-endian files.
Format: System V ABI, generic part (chapters 4 and 5), and elf(5).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_PT_DYNAMIC, _PT_INTERP, _PT_LOAD = 2, 3, 1
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5


@dataclass(frozen=True)
class Requirements:
    """What a program asks of the system before it runs: its interpreter (absolute path) and its libraries."""

    interpreter: str | None
    libraries: tuple[str, ...]


@dataclass(frozen=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


def requirements(data: bytes) -> Requirements:
    """Read the interpreter and the names of needed libraries from the bytes of a program or library.

    A static program has neither. Raises ValueError for anything but a whole 64-bit little-endian ELF file.
    """
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    try:
        segments = tuple(_segments(data))
        interpreter = next((_text(data, s.offset) for s in segments if s.kind == _PT_INTERP), None)
        return Requirements(interpreter, tuple(_needed(data, segments)))
    except (struct.error, ValueError) as error:
        raise ValueError(f"damaged ELF file: {error}") from error


def _segments(data: bytes) -> Iterator[_Segment]:
    (table,) = struct.unpack_from("<Q", data, 32)
    entry_size, count = struct.unpack_from("<HH", data, 54)
    for index in range(count):
        kind, _, offset, address, _, size = struct.unpack_from("<IIQQQQ", data, table + index * entry_size)
        yield _Segment(kind, offset, address, size)


def _needed(data: bytes, segments: tuple[_Segment, ...]) -> Iterator[str]:
    dynamic = next((s for s in segments if s.kind == _PT_DYNAMIC), None)
    if dynamic is None:
        return
    entries: list[tuple[int, int]] = []
    for offset in range(dynamic.offset, dynamic.offset + dynamic.size, 16):
        tag, value = struct.unpack_from("<qQ", data, offset)
        if tag == _DT_NULL:
            break
        entries.append((tag, value))
    strings = next((value for tag, value in entries if tag == _DT_STRTAB), None)
    if strings is None:
        return
    base = _file_offset(strings, segments)
    for tag, value in entries:
        if tag == _DT_NEEDED:
            yield _text(data, base + value)


def _file_offset(address: int, segments: tuple[_Segment, ...]) -> int:
    for segment in segments:
        if segment.kind == _PT_LOAD and segment.address <= address < segment.address + segment.size:
            return address - segment.address + segment.offset
    raise ValueError(f"address {address:#x} is in no segment")


def _text(data: bytes, offset: int) -> str:
    return data[offset : data.index(b"\0", offset)].decode()


def closure(programs: Iterable[Path], libraries: Mapping[str, Path]) -> dict[str, Path]:
    """All libraries that `programs` need, directly or not: name → file, chosen from `libraries` by name.

    Interpreters are included under their absolute path. Raises ValueError that names the first missing one.
    """
    found: dict[str, Path] = {}
    waiting = list(programs)
    while waiting:
        program = waiting.pop()
        needs = requirements(program.read_bytes())
        names = (*needs.libraries, *((needs.interpreter,) if needs.interpreter else ()))
        for name in names:
            if name in found:
                continue
            file = libraries.get(name.rpartition("/")[2])
            if file is None:
                raise ValueError(f"{program.name} needs {name}, which none of the packages has")
            found[name] = file
            waiting.append(file)
    return found
