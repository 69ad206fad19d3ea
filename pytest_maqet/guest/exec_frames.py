"""The frames between the host and maqet-exec, the program that runs commands in builtin:linux.

What they mean, and what the guest does with them: guests/exec/maqet-exec.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

MAGIC = b"MQE1"
#: A frame carries at most this many bytes.
LONGEST = 16384
#: The guest keeps this many bytes of a command's input that the command has not read.
INPUT_ROOM = 65536
#: What the guest takes: so many bytes of arguments with their zeros, so many arguments, commands at once.
LONGEST_ARGUMENTS = 256 * 1024
MOST_ARGUMENTS = 32 * 1024
SLOTS = 16
#: After so many zeros no frame that an earlier host did not finish is open any more.
PADDING = bytes(LONGEST + 16)
#: TOOK with this number: the command reads no more.
READS_NO_MORE = 0xFFFFFFFF

_HEADER = struct.Struct("<4sIIHBB")


class Kind(IntEnum):
    """The types of frames; those below 0x80 go to the guest."""

    HELLO = 1
    RUN = 2
    INPUT = 3
    KILL = 4
    DROP = 5
    WELCOME = 0x81
    OUT = 0x82
    ERR = 0x83
    EXIT = 0x84
    TOOK = 0x85
    PROCESS = 0x86


#: Flags of RUN: its next piece follows; the command gets input; it has the environment of a shell's child.
MORE, HAS_INPUT, IN_SHELL = 1, 2, 4


@dataclass(frozen=True)
class Frame:
    """A frame from the guest."""

    kind: int
    command: int
    data: bytes

    def numbers(self, count: int) -> tuple[int, ...]:
        """The data as 4-byte numbers; raises ValueError when there are not just so many."""
        if len(self.data) != 4 * count:
            raise ValueError(f"what the guest sends is not maqet-exec's: a frame with {len(self.data)} bytes")
        return struct.unpack(f"<{count}I", self.data)


def packed(session: int, command: int, kind: Kind, data: bytes = b"", flags: int = 0) -> bytes:
    """A frame as bytes."""
    return _HEADER.pack(MAGIC, session, command, len(data), kind, flags) + data


def hello(session: int) -> bytes:
    """What begins a session."""
    return packed(session, ~session & 0xFFFFFFFF, Kind.HELLO)


def welcome(session: int) -> bytes:
    """What the guest answers."""
    return packed(session, ~session & 0xFFFFFFFF, Kind.WELCOME)


@dataclass(frozen=True)
class Program:
    """What is to be run: its arguments, the first being its name; `in_shell`: as the child of a shell."""

    words: tuple[bytes, ...]
    in_shell: bool = False

    @property
    def fits(self) -> bool:
        """Whether the guest takes so much."""
        size = sum(len(word) + 1 for word in self.words)
        return size <= LONGEST_ARGUMENTS and len(self.words) <= MOST_ARGUMENTS


def run_frames(session: int, command: int, program: Program, *, has_input: bool) -> bytes:
    """What starts a command."""
    data = b"".join(word + b"\0" for word in program.words)
    last = (HAS_INPUT if has_input else 0) | (IN_SHELL if program.in_shell else 0)
    pieces = [data[at : at + LONGEST] for at in range(0, len(data), LONGEST)]
    frames = [packed(session, command, Kind.RUN, piece, MORE) for piece in pieces[:-1]]
    return b"".join([*frames, packed(session, command, Kind.RUN, pieces[-1], last)])


class FrameReader:
    """Cuts what the guest sends into frames, from the WELCOME of this session on."""

    def __init__(self, session: int) -> None:
        self.session = session
        self.welcomed = False
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now; raises ValueError for what is none."""
        self._data += data
        if not self.welcomed and not self._find_welcome():
            return
        while len(self._data) >= _HEADER.size:
            magic, session, command, length, kind, _ = _HEADER.unpack_from(self._data)
            if magic != MAGIC or session != self.session:
                raise ValueError("what the guest sends is not maqet-exec's")
            end = _HEADER.size + length
            if len(self._data) < end:
                return
            frame = Frame(kind, command, bytes(self._data[_HEADER.size : end]))
            del self._data[:end]
            if kind != Kind.WELCOME:  # a second HELLO may have been sent while the first was answered
                yield frame

    def _find_welcome(self) -> bool:
        """What an earlier host was sent comes before it, whole or in part."""
        wanted = welcome(self.session)
        at = self._data.find(wanted)
        if at < 0:
            del self._data[: -len(wanted)]
            return False
        del self._data[: at + len(wanted)]
        self.welcomed = True
        return True
