"""A connection to the QEMU guest agent, over the qemu.qmp library.

The agent speaks QMP's JSON without greeting and negotiation (docs/interop/qemu-ga-ref of QEMU). Its socket
accepts a client even when no agent runs in the guest, and then says nothing: only `guest-sync` with a number
of our own proves that somebody is there, so each attempt to connect makes that exchange, under a time limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from qemu.qmp import ExecInterruptedError, ExecuteError, Message, QMPClient, QMPError, Runstate
from qemu.qmp.error import ProtocolError

from pytest_maqet.deadline import Deadline, pauses
from pytest_maqet.errors import ChannelError

#: How much of the agent's words for an error is taken, in characters.
LONGEST_DESCRIPTION = 1000
#: The longest answer taken, in bytes: 16 MiB of output, twice, in base64, with room.
LONGEST_ANSWER = 64 * 1024 * 1024
#: Seconds that the first attempt waits for an answer; each later one twice as long, up to `LAST_ATTEMPT`.
FIRST_ATTEMPT = 0.25
LAST_ATTEMPT = 8.0
#: RecursionError: JSON that is nested deeper than Python's parser goes.
_LOST = (ExecInterruptedError, QMPError, ProtocolError, OSError, EOFError, ValueError, RecursionError)

# The library tells every broken connection to its logger, where pytest's log capture would show it to the
# user as an error of the test. What matters of it is in our exceptions.
# A logger outside the tree of loggers: pytest hears those in it even where they do not propagate.
_silent = logging.Logger("pytest_maqet.agent", logging.CRITICAL + 1)


class _Client(QMPClient):
    """The library's client, quiet, and deaf to answers that nobody here has asked for."""

    @property
    def logger(self) -> logging.Logger:
        """The library sets its own, and uses it, while it is constructed."""
        return _silent

    @logger.setter
    def logger(self, _: logging.Logger) -> None:
        pass

    def __init__(self) -> None:
        super().__init__(readbuflen=LONGEST_ANSWER)
        self.await_greeting = False
        self.negotiate = False
        self.events.event_filter = lambda _event: False

    def _cb_inbound(self, msg: Message) -> Message:
        return msg

    def _cb_outbound(self, msg: Message) -> Message:
        return msg

    async def _on_message(self, msg: Message) -> None:
        # The agent's complaint about the byte that resets its parser has no id; to the library that is a
        # reason to hang up. Ids of ours are text; one that is a list is more than the library can look up.
        if isinstance(msg.get("id"), str):
            await super()._on_message(msg)


class AgentRefused(ChannelError):
    """The agent answered a request with an error of its own; `description` is the agent's text."""

    def __init__(self, message: str, description: str) -> None:
        super().__init__(message)
        self.description = description


class AgentSession:
    """Connects to the agent's socket when asked something, and stays connected; loop-thread only.

    With `shared`, other processes use the same socket, which serves one client at a time: then a lock on a
    file beside it is held while connected, and the connection is closed as soon as nothing is under way.
    """

    def __init__(self, path: Path, vm_name: str, *, shared: bool) -> None:
        self.path = path
        self.vm_name = vm_name
        self.shared = shared
        self._client: _Client | None = None
        self._socket: socket.socket | None = None
        self._early: socket.socket | None = None
        self._lock_fd = -1
        self._users = 0
        self._connecting = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def held(self, deadline: Deadline) -> AsyncIterator[None]:
        """Be connected for the time of the block; blocks may overlap.

        Raises ChannelError when the agent does not answer before the deadline.
        """
        self._users += 1
        try:
            async with self._connecting:
                if self._client is None or self._client.runstate is not Runstate.RUNNING:
                    await self._connect(deadline)
            yield
        finally:
            self._users -= 1
            if self.shared and not self._users:
                async with self._connecting:
                    if not self._users:
                        await self._disconnect()

    async def ask(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Execute an agent command inside `held` and return its value.

        Raises AgentRefused for the agent's own errors, ChannelError when the connection broke.
        """
        client = self._client
        if client is None:
            raise ChannelError(f"{self.vm_name}: the connection to the guest agent was closed")
        try:
            return await client.execute(command, dict(arguments) if arguments else None)
        except ExecuteError as error:
            description = error.error.error.desc[:LONGEST_DESCRIPTION]
            raise AgentRefused(
                f"{self.vm_name}: the guest agent refused {command}: {description}", description
            ) from None
        except _LOST as error:
            raise ChannelError(
                f"{self.vm_name}: the connection to the guest agent broke during {command}: {error!r}"
            ) from error

    async def reach(self) -> None:
        """Open the socket for the next `held`, of a guest that does not run yet.

        An agent that was frozen while somebody was connected then never sees that one go, for which it would
        sleep a tenth of a second (channel_event_cb in qga/main.c of QEMU).
        """
        if not self.shared and self._early is None and self._client is None:
            self._early = await self._opened()

    async def close(self) -> None:
        """Disconnect; the next `held` connects again."""
        async with self._connecting:
            early, self._early = self._early, None
            if early is not None:
                early.close()
            await self._disconnect()

    async def _connect(self, deadline: Deadline) -> None:
        await self._disconnect()
        if self.shared:
            await self._lock(deadline)
        patience = FIRST_ATTEMPT
        reason = "no attempt was made"
        for pause in pauses(deadline):
            try:
                async with asyncio.timeout(min(patience, deadline.remaining)):
                    await self._attempt()
                return
            except TimeoutError:
                reason = "it accepts the connection, but nothing answers: no agent runs in the guest (yet)"
                patience = min(patience * 2, LAST_ATTEMPT)
            except _LOST as error:
                reason = repr(error)
                await asyncio.sleep(pause)  # the socket is there or not; nothing would tell us
            await self._disconnect(unlock=False)
        await self._disconnect()
        raise ChannelError(
            f"{self.vm_name}: the guest agent did not answer within {deadline}: {reason}",
            hint="the guest needs qemu-guest-agent installed and started",
        )

    async def _attempt(self) -> None:
        self._socket, self._early = self._early or await self._opened(), None
        # 0xFF is no JSON: the agent forgets what an earlier client may have left half sent (guest-sync's
        # documentation advises it).
        self._socket.send(b"\xff")
        self._client = _Client()
        await self._client.connect(self._socket)
        number = secrets.randbits(53)
        if await self._client.execute("guest-sync", {"id": number}) != number:
            raise ConnectionError("the agent answered guest-sync with another number")

    async def _opened(self) -> socket.socket:
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            opened.setblocking(False)
            await asyncio.get_running_loop().sock_connect(opened, str(self.path))
        except BaseException:
            opened.close()
            raise
        return opened

    async def _disconnect(self, *, unlock: bool = True) -> None:
        client, self._client = self._client, None
        connection, self._socket = self._socket, None
        if connection is not None:
            # Half a message may be unsent, and the guest may never take it: orderly would be for ever.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        try:
            if client is not None:
                await _hang_up(client)
        finally:
            if connection is not None:
                connection.close()
            if unlock and self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1

    async def _lock(self, deadline: Deadline) -> None:
        path = self.path.with_name(f"{self.path.name}.lock")
        self._lock_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        for pause in pauses(deadline):
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                await asyncio.sleep(pause)  # flock(2) can only be asked for or blocked on
        os.close(self._lock_fd)
        self._lock_fd = -1
        raise ChannelError(
            f"{self.vm_name}: another process of this run kept the guest agent busy for {deadline}"
        )


async def _hang_up(client: _Client) -> None:
    """End the library's session; a broken one re-raises its cause first and is quiet the second time."""
    for _ in range(2):
        with contextlib.suppress(*_LOST):
            await client.disconnect()
            return
