"""Commands by maqet-exec, a small program in builtin:linux: quicker than QEMU's agent, with the same outcome.

The program and its messages: guests/exec/maqet-exec.c.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import NoReturn

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError
from pytest_maqet.guest.commands import END_GRACE, CommandOutcome, CommandRequest, command_timeout
from pytest_maqet.guest.exec_connection import ExecCommand, ExecConnection
from pytest_maqet.guest.exec_frames import SLOTS, Program
from pytest_maqet.guest.shell_script import END_PROCESSES, command_script

#: Seconds for somebody to answer when a connection is made.
PATIENCE = 5.0
#: Of each output so many bytes are kept, as QEMU's agent does.
OUTPUT_LIMIT = 16 * 1024 * 1024
# Places that are left for what ends commands.
_RESERVED = 4


class ExecPort:
    """The host's end of maqet-exec's port; loop-thread only.

    QEMU serves one client of the socket at a time, so this is for a VM that only one process uses.
    """

    def __init__(self, socket_path: Path, vm_name: str) -> None:
        self.path = socket_path
        self.vm_name = vm_name
        self._connection: ExecConnection | None = None
        self._connecting = asyncio.Lock()
        self._endings: set[asyncio.Task[object]] = set()

    def takes(self, request: CommandRequest) -> bool:
        """Whether there is a place for one more command, and this one is not too big."""
        busy = self._connection.busy if self._connection is not None else 0
        return busy < SLOTS - _RESERVED and _program(request).fits

    def _greeted(self) -> bool:
        return self._connection is not None and self._connection.usable and self._connection.welcomed

    @property
    def usable(self) -> bool:
        """Whether it is connected."""
        return self._connection is not None and self._connection.usable

    async def reach(self) -> None:
        """Open the socket, if that is not so yet; the guest need not run for it.

        Raises ChannelError when there is no such socket.
        """
        if self.usable:
            return
        await self._drop()
        try:
            self._connection = await ExecConnection.opened(self.path, self.vm_name)
        except OSError as error:
            raise ChannelError(f"{self.vm_name}: {self.path} cannot be reached: {error}") from error

    async def connect(self, deadline: Deadline) -> None:
        """Be connected, and certain that somebody answers; raises ChannelError when nobody does."""
        if self._greeted():
            return
        async with self._connecting:
            if self._greeted():  # by another command, which a second greeting would end
                return
            await self.reach()
            assert self._connection is not None
            try:
                async with asyncio.timeout(min(PATIENCE * deadline.scale, deadline.remaining)):
                    await self._connection.greet()
            except TimeoutError:
                await self._drop()
                raise ChannelError(f"{self.vm_name}: nobody in the guest answered on {self.path}") from None

    async def run(self, request: CommandRequest, deadline: Deadline) -> CommandOutcome:
        """Run a command to its end; see `Channel.run`. It must be connected."""
        command = self._begin(_program(request), request.input)
        try:
            async with asyncio.timeout(deadline.remaining):
                await asyncio.shield(command.done)
        except TimeoutError:
            await self._too_late(command, request, deadline)
        except asyncio.CancelledError:
            self._later(self._end(command))
            raise
        return self._outcome(command, request)

    def lost(self) -> None:
        """The guest has begun anew: end what waits for an answer."""
        if self._connection is not None:
            self._connection.fail(
                ChannelError(
                    f"{self.vm_name}: the guest agent has closed its port while it ran a command",
                    hint="it has ended or the guest goes down; the next command looks for another channel",
                )
            )

    async def close(self) -> None:
        """Disconnect; `connect` connects again. Idempotent."""
        endings = list(self._endings)
        for task in endings:
            task.cancel()
        await asyncio.gather(*endings, return_exceptions=True)
        await self._drop()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def _begin(self, program: Program, data: bytes | None = None) -> ExecCommand:
        if self._connection is None:
            raise ChannelError(f"{self.vm_name}: the connection to the guest was closed")
        return self._connection.begin(program, data, OUTPUT_LIMIT)

    def _outcome(self, command: ExecCommand, request: CommandRequest) -> CommandOutcome:
        status, error = command.done.result()
        if command.cut:
            raise ChannelError(
                f"{self.vm_name}: the command printed more than the guest agent keeps (16 MiB): {request}",
                hint="let it write to a file in the guest, or run it over another channel",
            )
        if error:
            program = os.fsdecode(_program(request).words[0])
            command.stderr += f"{program}: {os.strerror(error)}\n".encode("utf-8", "surrogateescape")
        return CommandOutcome(status, bytes(command.stdout), bytes(command.stderr))

    async def _too_late(self, command: ExecCommand, request: CommandRequest, deadline: Deadline) -> NoReturn:
        """Word the time-out; a command that was started is ended before."""
        if not command.process.done():
            self._later(self._end(command))
            raise ChannelError(
                f"{self.vm_name}: the guest agent did not start the command within {deadline}: {request}"
            )
        ended = await self._end(command)
        partial = CommandOutcome(0, bytes(command.stdout), bytes(command.stderr))
        raise command_timeout(self.vm_name, request, deadline, partial, ended=ended)

    async def _end(self, command: ExecCommand) -> bool:
        """End a command with all its children; whether that was done."""
        with contextlib.ExitStack() as stack, contextlib.suppress(ChannelError, TimeoutError):
            stack.callback(command.drop)  # nothing is left to drop when it is over
            async with asyncio.timeout(END_GRACE):
                process = await asyncio.shield(command.process)
                if process and not command.done.done():
                    words = ("/bin/sh", "-c", END_PROCESSES, "sh", str(process), "KILL")
                    await self._begin(Program(tuple(os.fsencode(word) for word in words))).done
                await asyncio.shield(command.done)
                return True
        return False

    def _later(self, work: Coroutine[object, object, object]) -> None:
        """Do `work` without making a cancelled caller wait for it."""
        task = asyncio.ensure_future(work)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)


def _program(request: CommandRequest) -> Program:
    """What the guest is to run; a shell is added only where there is something to set.

    QEMU's agent starts a program that is given as arguments by a shell: it gets that one's environment.
    """
    words: tuple[str, ...]
    if request.env or request.cwd is not None:
        words = ("/bin/sh", "-c", command_script(request) + 'exec "$@"', "sh")
    elif isinstance(request.command, str):
        words = ("/bin/sh", "-c", request.command)
    else:
        words = request.command
    return Program(tuple(word.encode("utf-8", "surrogateescape") for word in words), words is request.command)
