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
from pytest_maqet.errors import ChannelError, NotSupported, QMPCommandError, WaitTimeout

#: The longest answer that is taken, in bytes; query-qmp-schema of QEMU 10 is about 250 KiB.
LONGEST_ANSWER = 16 * 1024 * 1024
#: The longest event that is taken, in bytes; QEMU's have some hundred.
LONGEST_EVENT = 256 * 1024
#: How many characters of what QEMU says stand in an error.
_SHOWN = 1000
#: How long a lost session may take to say why, in seconds; it takes less than a millisecond.
_WHY = 0.5

# The library tells every broken connection to its logger, where pytest's log capture would show it to the
# user as an error of the test. What matters of it is in our exceptions.
# A logger outside the tree of loggers: pytest hears those in it even where they do not propagate.
_silent = logging.Logger("pytest_maqet.qmp", logging.CRITICAL + 1)


#: What a session can end by; JSON that is none, no UTF-8, or has numbers or nesting without end among it.
_BROKEN = (QMPError, ProtocolError, OSError, EOFError, ValueError, TypeError, RecursionError)


class _Client(QMPClient):
    """The library's client with events handed on as they arrive, and no message formatted for a log."""

    def __init__(self, on_event: Callable[[Mapping[str, Any]], None]) -> None:
        super().__init__(readbuflen=LONGEST_ANSWER)
        self.logger = _silent
        self.events.event_filter = lambda _event: False  # its own queue would grow without bound
        self._on_event = on_event

    def _cb_inbound(self, msg: Message) -> Message:
        if "event" in msg:
            self._take_event(msg)
        return msg

    def _take_event(self, msg: Message) -> None:
        """Hand an event on; raises ProtocolError for one that QEMU would not send, which ends the session."""
        name, data = msg["event"], msg.get("data", {})
        if not isinstance(name, str):
            raise ProtocolError(f"an event without a name: {_brief(name)}")
        if (length := len(bytes(msg))) > LONGEST_EVENT:
            raise ProtocolError(f"an event of {length} bytes: {_brief(name)}")
        if not isinstance(data, dict) or not isinstance(msg.get("timestamp", {}), dict):
            raise ProtocolError(f"the event {_brief(name)} has something else than objects in it")
        try:
            self._on_event(dict(msg))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ProtocolError(f"the event {_brief(name)} is not understood: {error!r}") from error

    def _cb_outbound(self, msg: Message) -> Message:
        return msg


class Monitor:
    """One connected QMP monitor; loop-thread only."""

    def __init__(
        self,
        path: Path,
        *,
        on_event: Callable[[Mapping[str, Any]], None],
        on_lost: Callable[[], None],
        vm_name: str,
    ) -> None:
        self.path = path
        #: Why the session was lost, where it was.
        self.lost = ""
        self._vm_name = vm_name
        self._on_lost = on_lost
        self._client = _Client(on_event)
        self._watch: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None

    @property
    def connected(self) -> bool:
        """Whether commands can be executed."""
        return self._client.runstate is Runstate.RUNNING

    @property
    def why(self) -> str:
        """Why the session was lost, to follow that there is none; empty where it was closed or never was."""
        return f": {self.lost}" if self.lost else ""

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
                f"{self._vm_name}: QEMU did not greet on its monitor {self.path} within {deadline}",
                hint="it hangs, or another client is connected to this monitor (each serves one)",
            ) from None
        except (ConnectError, OSError) as error:
            await self.close()
            raise ChannelError(f"{self._vm_name}: no QMP session on {self.path}: {_cause(error)}") from error
        self._watch = asyncio.create_task(self._tell_loss())

    async def execute(self, command: str, arguments: Mapping[str, Any] | None, deadline: Deadline) -> object:
        """Execute a QMP command and return QEMU's `return` value.

        Raises QMPCommandError when QEMU refuses, ChannelError when the session is lost, WaitTimeout when no
        answer came in time (the command may still have been carried out), NotSupported for a name in it that
        is no UTF-8.
        """
        if not self.connected:
            raise ChannelError(f"{self._vm_name}: there is no QMP session{self.why}")
        if name := _not_utf8(arguments):
            raise NotSupported(
                f"{self._vm_name}: QMP is UTF-8, and the name {name!a}, for {command!r}, is not",
                hint="let MAQET_RUN_BASE, MAQET_CACHE_DIR and the artefacts lie in other directories",
            )
        try:
            async with asyncio.timeout(deadline.remaining):
                return await self._client.execute(command, dict(arguments) if arguments else None)
        except TimeoutError:
            raise WaitTimeout(
                f"{self._vm_name}: QEMU did not answer the QMP command {command!r} within {deadline}"
            ) from None
        except ExecuteError as error:
            said = error.error.error
            raise QMPCommandError(
                f"QEMU refused the QMP command {command!r}: {_brief(said.desc)} ({_brief(said.class_)})"
                + (f"\narguments: {dict(arguments)}" if arguments else ""),
                error_class=said.class_,
                description=said.desc,
                command=command,
                arguments=arguments,
            ) from None
        except (ExecInterruptedError, QMPError, ProtocolError, OSError) as error:
            if self._watch is not None:  # it is the one to know why
                await asyncio.wait({self._watch}, timeout=_WHY)
            why = self.lost or _cause(error)
            raise ChannelError(
                f"{self._vm_name}: the QMP session was lost during {command!r}: {why}"
            ) from error

    async def close(self) -> None:
        """End the session; a lost connection is no error here. Idempotent."""
        watch, self._watch = self._watch, None
        if watch is not None and self.connected:
            watch.cancel()
        connection, self._socket = self._socket, None
        if connection is not None:
            # A command may be half unsent, and a QEMU that hangs never takes it: orderly would be for ever.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        if watch is not None:
            # It may be taking the session apart: interrupted there, the library would leave errors to nobody.
            await asyncio.gather(watch, return_exceptions=True)
        # A session that QEMU's end has broken re-raises that at the first disconnect, the second is quiet.
        for _ in range(2):
            with contextlib.suppress(*_BROKEN):
                await self._client.disconnect()
                break
        if connection is not None:
            connection.close()

    async def _tell_loss(self) -> None:
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()
        try:
            await self._client.disconnect()  # raises what has ended the session, the first time
        except _BROKEN as error:
            self.lost = _cause(error)
        self._on_lost()


def _not_utf8(value: object) -> str:
    """A text in the arguments of a command that cannot be sent, or nothing."""
    if isinstance(value, Mapping):
        return next(filter(None, map(_not_utf8, value.values())), "")
    if isinstance(value, list | tuple):
        return next(filter(None, map(_not_utf8, value)), "")
    surrogate = isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value)
    return str(value) if surrogate else ""


def _cause(error: BaseException) -> str:
    """What went wrong, without what the library wraps around it."""
    while isinstance(inner := getattr(error, "exc", None), BaseException):
        if isinstance(inner, AssertionError):  # the library's own words for "not understood"
            break
        error = inner
    said = str(error).splitlines()
    return f"{type(error).__name__}: {_brief(said[0])}" if said else type(error).__name__


def _brief(said: object) -> str:
    """The beginning of what QEMU says, which decides how long that is."""
    text = said if isinstance(said, str) else repr(said)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"
