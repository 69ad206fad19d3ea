"""One connection to maqet-exec, and the commands that are under way over it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from pathlib import Path
from typing import Self, TypeVar, cast

from pytest_maqet.errors import ChannelError
from pytest_maqet.guest.exec_frames import (
    INPUT_ROOM,
    LONGEST,
    PADDING,
    READS_NO_MORE,
    Frame,
    FrameReader,
    Kind,
    Program,
    hello,
    packed,
    run_frames,
)

#: Seconds after which an answer to HELLO is asked for again; each time it is twice as long.
FIRST_ATTEMPT = 0.25

T = TypeVar("T")


class ExecCommand:
    """A command under way. `process` is its process id in the guest, 0 when it could not be started.

    `done` is its status, and Linux's error number when it could not be started, else 0.
    """

    def __init__(self, connection: ExecConnection, number: int, data: bytes | None, limit: int) -> None:
        loop = asyncio.get_running_loop()
        self.process: asyncio.Future[int] = loop.create_future()
        self.done: asyncio.Future[tuple[int, int]] = loop.create_future()
        self.stdout = bytearray()
        self.stderr = bytearray()
        #: whether it printed more than is kept
        self.cut = False
        self._connection = connection
        self._number = number
        self._data = data
        self._at = 0
        self._room = INPUT_ROOM
        self._limit = limit

    def drop(self) -> None:
        """Nobody wants to know how it ends."""
        self._connection.forget(self._number)

    def fail(self, error: ChannelError) -> None:
        """It will never be known how it ends."""
        for future in (self.process, self.done):
            if not future.done():
                future.set_exception(error)
                future.exception()  # there need not be anybody who waits for both

    def input_frames(self, session: int) -> bytes:
        """The next pieces of its input that the guest has room for, and the end after the last."""
        if self._data is None:
            return b""
        frames = []
        while self._at < len(self._data) and self._room:
            piece = self._data[self._at : self._at + min(LONGEST, self._room)]
            self._at += len(piece)
            self._room -= len(piece)
            frames.append(packed(session, self._number, Kind.INPUT, piece))
        if self._at == len(self._data):
            self._data = None
            frames.append(packed(session, self._number, Kind.INPUT))
        return b"".join(frames)

    def take(self, frame: Frame) -> bool:
        """Take in what the guest tells of it; whether it is over."""
        if frame.kind == Kind.OUT:
            self._keep(self.stdout, frame.data)
        elif frame.kind == Kind.ERR:
            self._keep(self.stderr, frame.data)
        elif frame.kind == Kind.PROCESS:
            _settle(self.process, frame.numbers(1)[0])
        elif frame.kind == Kind.TOOK:
            (count,) = frame.numbers(1)
            if count == READS_NO_MORE:
                self._data = None
            else:
                self._room += count
        elif frame.kind == Kind.EXIT:
            status, error = frame.numbers(2)
            _settle(self.process, 0)
            _settle(self.done, (status, error))
            return True
        return False

    def _keep(self, output: bytearray, data: bytes) -> None:
        room = self._limit - len(output)
        self.cut = self.cut or len(data) > room
        output += data[:room]


class ExecConnection(asyncio.Protocol):
    """A connected socket; loop-thread only. Made by `opened`, and to be greeted once before commands."""

    def __init__(self, vm_name: str) -> None:
        self.vm_name = vm_name
        # Random, so that nothing an earlier client is answered too late is ever taken for ours.
        self._session = secrets.randbits(32)
        self._reader = FrameReader(self._session)
        self._transport: asyncio.Transport | None = None
        self._commands: dict[int, ExecCommand] = {}
        self._number = 0
        self._welcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def opened(cls, path: Path, vm_name: str) -> Self:
        """A connection to this socket; raises OSError."""
        loop = asyncio.get_running_loop()
        _, made = await loop.create_unix_connection(lambda: cls(vm_name), str(path))
        return made

    @property
    def usable(self) -> bool:
        """Whether nothing has broken it."""
        return not self._gone.done() and self._transport is not None and not self._transport.is_closing()

    @property
    def welcomed(self) -> bool:
        """Whether the guest has answered."""
        return self._reader.welcomed

    @property
    def busy(self) -> int:
        """How many commands are under way."""
        return len(self._commands)

    async def greet(self) -> None:
        """Begin the session; returns when the guest has answered, however long that takes."""
        self._write(hello(self._session))
        patience = FIRST_ATTEMPT
        while not self._welcome.done():
            await asyncio.wait({self._welcome, self._gone}, timeout=patience, return_when="FIRST_COMPLETED")
            if self._gone.done():
                raise ChannelError(f"{self.vm_name}: the connection to the guest broke")
            if not self._welcome.done():
                # What another client has left half sent may have swallowed it.
                self._write(PADDING + hello(self._session))
                patience *= 2

    def begin(self, program: Program, data: bytes | None, limit: int) -> ExecCommand:
        """Start a command with this input, of whose outputs `limit` bytes are kept each."""
        self._number += 1
        command = ExecCommand(self, self._number, data or None, limit)
        self._commands[self._number] = command
        frames = run_frames(self._session, self._number, program, has_input=bool(data))
        self._write(frames + command.input_frames(self._session))
        return command

    def forget(self, number: int) -> None:
        """Tell the guest that nobody wants to know of a command any more."""
        if self._commands.pop(number, None) is not None and self.usable:
            self._write(packed(self._session, number, Kind.DROP))

    def fail(self, error: ChannelError) -> None:
        """End everything that waits for the guest; the connection is of no more use."""
        commands, self._commands = self._commands, {}
        for command in commands.values():
            command.fail(error)
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Hang up. Idempotent."""
        self.fail(ChannelError(f"{self.vm_name}: the connection to the guest was closed"))
        with contextlib.suppress(OSError):
            await self._gone

    # -- what asyncio calls --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """The guest has sent something."""
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except ValueError as error:
            self.fail(ChannelError(f"{self.vm_name}: the connection to the guest broke: {error}"))
        if self._reader.welcomed and not self._welcome.done():
            self._welcome.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed, by whoever it was."""
        self.fail(
            ChannelError(f"{self.vm_name}: the connection to the guest broke: {exc or 'it was closed'}")
        )
        _settle(self._gone, None)

    def _take(self, frame: Frame) -> None:
        command = self._commands.get(frame.command)
        if command is None:
            return
        if command.take(frame):
            del self._commands[frame.command]
        elif frame.kind == Kind.TOOK and (frames := command.input_frames(self._session)):
            self._write(frames)

    def _write(self, data: bytes) -> None:
        if self._transport is None or not self.usable:
            raise ChannelError(f"{self.vm_name}: the connection to the guest broke")
        self._transport.write(data)


def _settle(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)
