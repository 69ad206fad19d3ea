"""Writing to a guest's serial line.

The socket is connected for no longer than a piece of text needs to get into the guest. QEMU sends each
character of output to a connected client as well, one by one; when the client's socket is full, which takes
a few hundred of them, it tries the character again and writes it into the log file a second time
(qemu_chr_write_buffer in chardev/char.c, seen on 7.2). Without a client the log is exact. What the guest says
is read from the log, never here.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from pathlib import Path

from pytest_maqet.deadline import FIRST_PAUSE, LONGEST_PAUSE
from pytest_maqet.errors import ChannelError


class SerialWriter:
    """The writing end of one serial line; loop-thread only.

    QEMU serves one client of the socket at a time and keeps the next one waiting, so what one process sends
    arrives in one piece, whoever else is writing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = asyncio.Lock()

    async def send(self, data: bytes) -> None:
        """Write `data`; returns when the guest's port has taken the last byte.

        A guest that does not read its port makes this wait; cancelled, it takes back what was not read.
        Raises ChannelError when QEMU is gone.
        """
        async with self._lock:
            try:
                reader, writer = await asyncio.open_unix_connection(self.path)
                drain = asyncio.ensure_future(_discard(reader))
                try:
                    writer.write(data)
                    await _taken(writer)
                finally:
                    drain.cancel()
                    writer.close()
            except OSError as error:
                raise ChannelError(f"cannot write to the serial line at {self.path}: {error}") from error

    async def close(self) -> None:
        """Nothing is held open between two pieces of text."""


async def _taken(writer: asyncio.StreamWriter) -> None:
    """Return when QEMU has read everything: at a hang-up it would drop the rest."""
    await writer.drain()
    connection: socket.socket = writer.get_extra_info("socket")
    pause = FIRST_PAUSE / 2
    while writer.transport.get_write_buffer_size() or _unread(connection):
        if writer.is_closing():
            raise BrokenPipeError("QEMU closed the connection")
        await asyncio.sleep(pause)  # the kernel has no event for "the peer has read"
        pause = min(pause * 1.2, LONGEST_PAUSE / 10)


def _unread(connection: socket.socket) -> int:
    """Bytes that QEMU has not read yet (unix(7): SIOCOUTQ, which is TIOCOUTQ)."""
    answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
    return int(struct.unpack("i", answer)[0])


async def _discard(reader: asyncio.StreamReader) -> None:
    """Read and forget, for an unread socket would block the guest; the log has it already."""
    try:
        while await reader.read(64 * 1024):
            pass
    except OSError:
        pass  # QEMU is gone; the writer sees that, too
