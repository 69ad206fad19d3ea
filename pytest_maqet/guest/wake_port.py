"""Puts a resumed guest right, its clock and its random numbers, in one exchange with maqet-wake in the guest.

A guest that goes on from a frozen state has that state's clock, and would draw the same random numbers as
every other one that goes on from it. The program in the guest, the form of its messages and the facts behind
them: guests/wake/maqet-wake.asm.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError

#: A seed has this many bytes.
SEED_BYTES = 64

#: After this time without an answer the message is sent anew, over a new connection, in seconds: twice
#: does no harm.
AGAIN = 5.0

_MAGIC = b"MQW1"
_MESSAGE = struct.Struct("<4sIqII64s")
_WORDS = struct.Struct("<22I")
_ANSWER = struct.Struct("<4sIBB")
_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class WakeAnswer:
    """What the guest could do, each None when it was done, else why not in words.

    `reseed` is None too where no seed was given.
    """

    clock: str | None
    reseed: str | None


def new_seed() -> bytes:
    """A seed for one guest and one use, from the host's own random numbers."""
    return secrets.token_bytes(SEED_BYTES)


def wake_message(number: int, now: float | None, seed: bytes | None) -> bytes:
    """A message to maqet-wake; `now` None is this moment."""
    moment = time.time_ns() if now is None else round(now * _NANOSECONDS)
    seconds, nanoseconds = divmod(moment, _NANOSECONDS)
    parts = (_MAGIC, number, seconds, nanoseconds)
    total = sum(_WORDS.unpack(_MESSAGE.pack(*parts, 0, seed or b"")))
    return _MESSAGE.pack(*parts, -total % 2**32, seed or b"")


def errno_words(number: int) -> str | None:
    """Linux's error number in words; None for 0."""
    if number == 0:
        return None
    return f"{errno.errorcode.get(number, number)} ({os.strerror(number)})"


class WakePort:
    """The host's end of maqet-wake's port; loop-thread only, one exchange at a time.

    QEMU serves one client of the socket at a time: a second one waits until the first has closed.
    """

    def __init__(self, socket_path: Path, vm_name: str) -> None:
        self.path = socket_path
        self.vm_name = vm_name
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        # What an earlier client was answered too late begins with another number.
        self._number = secrets.randbits(32)

    async def connect(self, deadline: Deadline) -> None:
        """Connect, if that is not so yet; the guest need not run for it.

        Raises ChannelError when there is no such socket.
        """
        if self._writer is not None and not self._writer.is_closing():
            return
        await self.close()
        try:
            async with asyncio.timeout(deadline.remaining):
                self._reader, self._writer = await asyncio.open_unix_connection(self.path)
        except (OSError, TimeoutError) as error:
            raise ChannelError(
                f"{self.vm_name}: the wake port at {self.path} cannot be reached: {error or 'time is over'}",
                hint="QEMU has ended, or this VM has no port for the guest agent and so none for this",
            ) from error

    async def wake(self, deadline: Deadline, *, seed: bytes | None, now: float | None = None) -> WakeAnswer:
        """Set the guest's clock to `now` (seconds since 1970; None: this host's time), and reseed it.

        The time is looked at when the message leaves; a guest that does not run yet gets it late. Without a
        `seed` (64 bytes, see `new_seed`) random numbers are left alone. Connects where that is not so yet.
        Raises ChannelError when nobody answers before the deadline, and is disconnected then.
        """
        if seed is not None and (len(seed) != SEED_BYTES or not any(seed)):
            raise ValueError(f"a seed has {SEED_BYTES} bytes and is not all zeros, got {len(seed)} bytes")
        while True:
            try:
                return await self._exchange(deadline.within(AGAIN * deadline.scale), seed, now)
            except TimeoutError:
                await self.close()
                if deadline.expired:
                    raise ChannelError(
                        f"{self.vm_name}: nobody in the guest answered on the wake port within {deadline}",
                        hint="the guest needs maqet-wake started on /dev/virtio-ports/org.maqet.wake.0; "
                        "builtin:linux does that",
                    ) from None
            except (OSError, EOFError) as error:
                await self.close()
                raise ChannelError(f"{self.vm_name}: the wake port broke: {error!r}") from error
            except BaseException:
                await self.close()
                raise

    async def _exchange(self, deadline: Deadline, seed: bytes | None, now: float | None) -> WakeAnswer:
        await self.connect(deadline)
        assert self._writer is not None
        self._number = (self._number + 1) % 2**32
        async with asyncio.timeout(deadline.remaining):
            self._writer.write(wake_message(self._number, now, seed))
            return await self._answer()

    async def close(self) -> None:
        """Disconnect; the next `connect` or `wake` connects again. Idempotent."""
        writer, self._writer, self._reader = self._writer, None, None
        if writer is not None:
            writer.transport.abort()  # a guest that reads no more would keep an orderly end waiting
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self) -> WakeAnswer:
        assert self._reader is not None
        while True:
            magic, number, clock, reseed = _ANSWER.unpack(await self._reader.readexactly(_ANSWER.size))
            if magic != _MAGIC:
                raise ConnectionError("what the guest answers is not maqet-wake's")
            if number == self._number:
                return WakeAnswer(errno_words(clock), errno_words(reseed))
