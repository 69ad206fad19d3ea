"""Conditions that must be asked for: commands in the guest, listeners, HTTP. They poll, ever more slowly.

A forwarded port answers for nobody: QEMU's user network accepts the connection with nothing behind it. So
a listener is looked for in the guest itself, or the guest must have sent bytes.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import re
from collections.abc import Awaitable, Callable
from typing import Protocol

from pytest_maqet.deadline import Deadline, pauses
from pytest_maqet.errors import ChannelError, MaqetError, NotSupported
from pytest_maqet.guest.commands import CompletedCommand
from pytest_maqet.masking import masked
from pytest_maqet.waiting.http_answer import HttpAnswer

#: One connection attempt or answer may take this long, in seconds, before the next is made.
ATTEMPT = 5.0
#: Of an HTTP answer no more is read than this many bytes, for some never end.
LONGEST_ANSWER = 64 * 1024 * 1024
_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp (include/net/tcp_states.h of Linux)
_LIST_SOCKETS = "cat /proc/net/tcp /proc/net/tcp6 2>/dev/null; exit 0"


class GuestReach(Protocol):
    """What these conditions need of a VM."""

    async def run_in_guest(self, command: str, deadline: Deadline) -> CompletedCommand:
        """Run a shell command over the VM's channel; ChannelError when there is none."""
        ...

    def has_channels(self) -> bool:
        """Whether the VM has any way to run a command."""
        ...

    async def agent_answers(self, deadline: Deadline) -> str:
        """An empty string when the guest agent answers, else why not."""
        ...

    async def host_address(self, guest_port: int) -> tuple[str, int]:
        """Where the host reaches this port of the guest; NotSupported without a forward."""
        ...


class _Polled:
    """Shared by all of this module: look, remember what was seen, pause, look again."""

    tolerates: tuple[type[MaqetError], ...] = ()

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._seen = "nothing: the first look was still under way"

    def last_seen(self) -> str:
        """What the last look found."""
        return self._seen

    def settle(self) -> None:
        """Nothing to take."""

    async def _until(self, look: Callable[[], Awaitable[bool]]) -> None:
        for pause in pauses(self._deadline):
            if await look():
                return
            await asyncio.sleep(pause)  # nothing tells us of a change inside the guest
        raise TimeoutError


class CommandStatus(_Polled):
    """A command in the guest ends with status 0 (`wanted` True) or another (False); value: its result."""

    def __init__(self, reach: GuestReach, command: str, deadline: Deadline, *, wanted: bool) -> None:
        super().__init__(deadline)
        self._reach = reach
        self._command = command
        self._wanted = wanted
        self._result: CompletedCommand | None = None

    def describe(self) -> str:
        """The command."""
        return f"the command {self._command!r} to {'succeed' if self._wanted else 'fail'} in the guest"

    async def hold(self) -> CompletedCommand:
        """Run the command again and again."""
        await self._until(self._look)
        assert self._result is not None
        return self._result

    async def _look(self) -> bool:
        try:
            self._result = await self._reach.run_in_guest(self._command, self._deadline)
        except ChannelError as error:
            self._seen = str(error)
            return False
        output = masked(f"{self._result.stdout!s}{self._result.stderr!s}".strip())[-500:]
        self._seen = f"status {self._result.returncode}, output {output!r}"
        return (self._result.returncode == 0) is self._wanted


class AgentAnswers(_Polled):
    """The guest agent answers a ping; value: None. A connection alone proves nothing."""

    def __init__(self, reach: GuestReach, deadline: Deadline) -> None:
        super().__init__(deadline)
        self._reach = reach

    def describe(self) -> str:
        """Speak of it as users do."""
        return "the guest agent to answer"

    async def hold(self) -> None:
        """Ping again and again."""
        await self._until(self._look)

    async def _look(self) -> bool:
        self._seen = await self._reach.agent_answers(self._deadline)
        return not self._seen


class PortOpen(_Polled):
    """A listener on a TCP port of the guest; value: the bytes of its banner (empty when none was read).

    With `banner`, or without a channel into the guest, bytes received through the forward are the proof.
    """

    def __init__(
        self, reach: GuestReach, port: int, deadline: Deadline, *, banner: re.Pattern[bytes] | None
    ) -> None:
        super().__init__(deadline)
        self._reach = reach
        self._port = port
        self._banner = banner
        self._value = b""

    def describe(self) -> str:
        """The port, and the banner if one is wanted."""
        if self._banner is not None:
            return f"a banner matching /{self._banner.pattern.decode(errors='replace')}/ on port {self._port}"
        return f"a listener on TCP port {self._port} in the guest"

    async def hold(self) -> bytes:
        """Ask the guest, or read its banner."""
        by_bytes = self._banner is not None or not self._reach.has_channels()
        await self._until(self._read_banner if by_bytes else self._ask_guest)
        return self._value

    async def _ask_guest(self) -> bool:
        try:
            ports = await _listening_ports(self._reach, self._deadline)
        except ChannelError as error:
            self._seen = str(error)
            return False
        self._seen = f"listening in the guest: {', '.join(map(str, sorted(ports))) or 'nothing'}"
        return self._port in ports

    async def _read_banner(self) -> bool:
        host, port = await self._reach.host_address(self._port)
        data = await _first_bytes(host, port, self._deadline.within(ATTEMPT))
        self._seen = f"received {data[:200]!r}" if data else "the port accepts, but nothing was received"
        self._value = data
        return bool(data) if self._banner is None else self._banner.search(data) is not None


class PortClosed(_Polled):
    """No listener on a TCP port of the guest; value: None. Needs a channel into the guest."""

    def __init__(self, reach: GuestReach, port: int, deadline: Deadline) -> None:
        super().__init__(deadline)
        self._reach = reach
        self._port = port

    def describe(self) -> str:
        """The port."""
        return f"TCP port {self._port} in the guest to have no listener"

    async def hold(self) -> None:
        """Ask the guest."""
        if not self._reach.has_channels():
            raise NotSupported(
                "wait.closed() has to ask inside the guest, and this VM has no channel for commands",
                hint="give the VM `guest: {connect: [agent]}` or `[console]`",
            )
        await self._until(self._look)

    async def _look(self) -> bool:
        try:
            ports = await _listening_ports(self._reach, self._deadline)
        except ChannelError as error:
            self._seen = str(error)
            return False
        self._seen = f"listening in the guest: {', '.join(map(str, sorted(ports))) or 'nothing'}"
        return self._port not in ports


class HttpAnswers(_Polled):
    """An HTTP GET through a forward is answered with `status`; value: the `HttpAnswer`."""

    def __init__(
        self, reach: GuestReach, port: int, deadline: Deadline, *, path: str = "/", status: int = 200
    ) -> None:
        super().__init__(deadline)
        self._reach = reach
        self._port = port
        self._path = path if path.startswith("/") else f"/{path}"
        self._status = status
        self._answer: HttpAnswer | None = None

    def describe(self) -> str:
        """The request and the wanted status."""
        return f"HTTP status {self._status} for GET {self._path} on port {self._port} of the guest"

    async def hold(self) -> HttpAnswer:
        """Send the request again and again."""
        await self._until(self._look)
        assert self._answer is not None
        return self._answer

    async def _look(self) -> bool:
        host, port = await self._reach.host_address(self._port)
        request = f"GET {self._path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
        attempt = self._deadline.within(ATTEMPT)
        data = await _first_bytes(host, port, attempt, send=request.encode("ascii", "replace"), to_end=True)
        if not data:
            if not self._deadline.expired:  # else the wait's end cut it off, and the look before says more
                self._seen = "the connection was accepted, but no answer came"
            return False
        try:
            self._answer = _parse_http(data)
        except (http.client.HTTPException, ValueError, OSError) as error:
            self._seen = f"not HTTP: {data[:100]!r} ({error!r})"
            return False
        self._seen = f"status {self._answer.status} {self._answer.reason}"
        return self._answer.status == self._status


async def _listening_ports(reach: GuestReach, deadline: Deadline) -> set[int]:
    """TCP ports with a listener, as the guest's /proc/net/tcp and tcp6 tell (proc_net_tcp.rst of Linux)."""
    table = str((await reach.run_in_guest(_LIST_SOCKETS, deadline)).stdout)
    rows = (line.split() for line in table.splitlines())
    return {int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == _LISTEN}


async def _first_bytes(
    host: str, port: int, deadline: Deadline, *, send: bytes = b"", to_end: bool = False
) -> bytes:
    """What a TCP peer sends first (or all it sends); empty when it closes, refuses or keeps silent."""
    data = bytearray()
    writer = None
    try:
        async with asyncio.timeout(deadline.remaining):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(send)
            while chunk := await reader.read(64 * 1024):
                data += chunk
                if not to_end or len(data) > LONGEST_ANSWER:
                    break
    except (OSError, TimeoutError):
        pass  # not yet
    finally:
        if writer is not None:
            writer.close()
    return bytes(data)


class _Received:
    """What http.client wants of a socket: a file of what was received."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_args: object, **_kwargs: object) -> io.BytesIO:
        """The received bytes."""
        return io.BytesIO(self._data)


def _parse_http(data: bytes) -> HttpAnswer:
    response = http.client.HTTPResponse(_Received(data))  # type: ignore[arg-type]
    response.begin()
    return HttpAnswer(
        response.status, response.reason, {k.lower(): v for k, v in response.getheaders()}, response.read()
    )
