"""Writing to a guest's serial line.

QEMU's socket for the line is connected only while somebody writes, and drained while it is connected: an
unread socket would block the guest. What the guest says is read from the log (`console_log`), never here.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from pathlib import Path

from pytest_maqet.errors import ChannelError

#: Without a write for this long the connection is closed, in seconds, so that another process can write.
IDLE_CLOSE = 0.5


class SerialLine:
    """The writing end of one serial line; loop-thread only.

    The socket serves one client at a time, a second one waits: all writers of a process share this object,
    and it lets go of the socket when it has been idle.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: asyncio.StreamWriter | None = None
        self._drain: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._lock = asyncio.Lock()

    async def send(self, data: bytes) -> None:
        """Write `data` to the guest; returns when QEMU has taken it.

        Raises ChannelError when QEMU is gone.
        """
        async with self._lock:
            try:
                writer = await self._connected()
                writer.write(data)
                await writer.drain()
            except OSError as error:
                await self.close()
                raise ChannelError(f"cannot write to the serial line at {self.path}: {error}") from error
            self._rearm()

    async def close(self) -> None:
        """Let go of the socket."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._drain is not None:
            self._drain.cancel()
            self._drain = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def _connected(self) -> asyncio.StreamWriter:
        if self._writer is not None and not self._writer.is_closing():
            return self._writer
        reader, self._writer = await asyncio.open_unix_connection(self.path)
        self._drain = asyncio.create_task(_discard(reader))
        return self._writer

    def _rearm(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        loop = asyncio.get_running_loop()
        self._idle = loop.call_later(IDLE_CLOSE, lambda: loop.create_task(self._close_if_idle()))

    async def _close_if_idle(self) -> None:
        async with self._lock:
            if self._writer is not None and _unread(self._writer):
                self._rearm()  # the guest is slow: closing now would lose what QEMU has not taken yet
                return
            await self.close()


def _unread(writer: asyncio.StreamWriter) -> int:
    """Bytes that QEMU has not read yet (unix(7): SIOCOUTQ, which is TIOCOUTQ)."""
    transport_socket = writer.get_extra_info("socket")
    answer = fcntl.ioctl(transport_socket.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
    return int(struct.unpack("i", answer)[0])


async def _discard(reader: asyncio.StreamReader) -> None:
    """Read and forget: the log has it already."""
    try:
        while await reader.read(64 * 1024):
            pass
    except OSError:
        pass  # QEMU is gone; whoever writes next is told
