"""A QMP session with one of a VM's monitors, over the qemu.qmp library.

A monitor serves one client; a second one that connects is kept waiting without a word
(docs/interop/qmp-spec.rst of QEMU), so every step here has a deadline. Events are handed on synchronously
as they arrive, before the answer to the command which caused them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qemu.qmp import ConnectError, ExecInterruptedError, ExecuteError, Message, QMPClient, QMPError, Runstate
from qemu.qmp.error import ProtocolError

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError, QMPCommandError, WaitTimeout

#: The longest answer that is taken, in bytes; query-qmp-schema of QEMU 10 is about 250 KiB.
LONGEST_ANSWER = 64 * 1024 * 1024

# The library tells every broken connection to its logger, where pytest's log capture would show it to the
# user as an error of the test. What matters of it is in our exceptions.
# A logger outside the tree of loggers: pytest hears those in it even where they do not propagate.
_silent = logging.Logger("pytest_maqet.qmp", logging.CRITICAL + 1)


class _Client(QMPClient):
    """The library's client with events handed on as they arrive, and no message formatted for a log."""

    def __init__(self, on_event: Callable[[Mapping[str, Any]], None]) -> None:
        super().__init__(readbuflen=LONGEST_ANSWER)
        self.logger = _silent
        self.events.event_filter = lambda _event: False  # its own queue would grow without bound
        self._on_event = on_event

    def _cb_inbound(self, msg: Message) -> Message:
        if "event" in msg:
            self._on_event(dict(msg))
        return msg

    def _cb_outbound(self, msg: Message) -> Message:
        return msg


class Monitor:
    """One connected QMP monitor; loop-thread only."""

    def __init__(
        self, path: Path, *, on_event: Callable[[Mapping[str, Any]], None], on_lost: Callable[[], None]
    ) -> None:
        self.path = path
        self._on_lost = on_lost
        self._client = _Client(on_event)
        self._watch: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None

    @property
    def connected(self) -> bool:
        """Whether commands can be executed."""
        return self._client.runstate is Runstate.RUNNING

    @property
    def version(self) -> str:
        """QEMU's version as its greeting told it, or an empty string before."""
        greeting = self._client.greeting
        if greeting is None:
            return ""
        version: Any = greeting.QMP.version["qemu"]
        return f"{version['major']}.{version['minor']}.{version['micro']}"

    async def connect(self, deadline: Deadline) -> None:
        """Connect and negotiate.

        Raises ChannelError when nobody answers on the socket or QEMU went away meanwhile, WaitTimeout when it
        accepts and then says nothing (hung, or another client holds this monitor).
        """
        try:
            async with asyncio.timeout(deadline.remaining):
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
                self._socket.setblocking(False)
                await asyncio.get_running_loop().sock_connect(self._socket, str(self.path))
                await self._client.connect(self._socket)
        except TimeoutError:
            raise WaitTimeout(
                f"QEMU did not greet on its monitor {self.path} within {deadline}",
                hint="it hangs, or another client is connected to this monitor (each serves one)",
            ) from None
        except (ConnectError, OSError) as error:
            await self.close()
            cause = error.exc if isinstance(error, ConnectError) else error
            raise ChannelError(f"no QMP session on {self.path}: {cause!r}") from error
        self._watch = asyncio.create_task(self._tell_loss())

    async def execute(self, command: str, arguments: Mapping[str, Any] | None, deadline: Deadline) -> object:
        """Execute a QMP command and return QEMU's `return` value.

        Raises QMPCommandError when QEMU refuses, ChannelError when the session is lost, WaitTimeout when no
        answer came in time (the command may still have been carried out).
        """
        try:
            async with asyncio.timeout(deadline.remaining):
                return await self._client.execute(command, dict(arguments) if arguments else None)
        except TimeoutError:
            raise WaitTimeout(f"QEMU did not answer the QMP command {command!r} within {deadline}") from None
        except ExecuteError as error:
            said = error.error.error
            raise QMPCommandError(
                f"QEMU refused the QMP command {command!r}: {said.desc} ({said.class_})"
                + (f"\narguments: {dict(arguments)}" if arguments else ""),
                error_class=said.class_,
                description=said.desc,
                command=command,
                arguments=arguments,
            ) from None
        except (ExecInterruptedError, QMPError, ProtocolError, OSError) as error:
            raise ChannelError(f"the QMP session was lost during {command!r}: {error}") from error

    async def close(self) -> None:
        """End the session; a lost connection is no error here. Idempotent."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        connection, self._socket = self._socket, None
        if connection is not None:
            # A command may be half unsent, and a QEMU that hangs never takes it: orderly would be for ever.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        # A session that QEMU's end has broken re-raises that at the first disconnect, the second is quiet.
        for _ in range(2):
            with contextlib.suppress(QMPError, ProtocolError, OSError, EOFError, ValueError):
                await self._client.disconnect()
                break
        if connection is not None:
            connection.close()

    async def _tell_loss(self) -> None:
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()
        self._on_lost()
