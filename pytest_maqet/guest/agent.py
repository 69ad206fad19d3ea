"""Commands by the QEMU guest agent: guest-exec and guest-exec-status.

Facts are from docs/interop/qemu-ga-ref and qga/commands.c of QEMU: the agent keeps at most 16 MiB of each
output and tells the rest was dropped; it calls a command ended when its outputs are closed, too; the status
of an ended command can be fetched once.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import time
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_maqet.deadline import Deadline, pauses
from pytest_maqet.errors import ChannelError
from pytest_maqet.guest.agent_answers import Answer
from pytest_maqet.guest.agent_session import AgentRefused, AgentSession
from pytest_maqet.guest.commands import END_GRACE, CommandOutcome, CommandRequest, command_timeout
from pytest_maqet.guest.shell_script import BECOME_COMMAND, END_PROCESSES, command_script

#: Input longer than this many bytes goes into a file of the guest first, in pieces of this size.
INPUT_PIECE = 1024 * 1024
_NEEDED = ("guest-exec", "guest-exec-status")
_SIGKILL = "KILL"


class AgentChannel:
    """The guest agent of one VM as a channel; loop-thread only.

    `shared` says that other processes use the same VM (see `AgentSession`).
    """

    name = "agent"

    def __init__(self, socket_path: Path, vm_name: str, *, shared: bool = False) -> None:
        self.vm_name = vm_name
        self._session = AgentSession(socket_path, vm_name, shared=shared)
        self._endings: set[asyncio.Task[object]] = set()
        self._lacks_setsid = False
        #: how long the agent took to start the last command
        self._start_seconds = 0.0

    async def probe(self, deadline: Deadline) -> None:
        """Return as soon as the agent answers and is allowed to run commands.

        Raises ChannelError at the deadline, or when the guest's agent has guest-exec switched off.
        """
        async with self._session.held(deadline):
            info = Answer(self.vm_name, "guest-info", await self._ask("guest-info", None, deadline))
        enabled = info.enabled_commands()
        missing = [name for name in _NEEDED if name not in enabled]
        if missing:
            raise ChannelError(
                f"{self.vm_name}: the guest agent answers, but does not allow {' and '.join(missing)}",
                hint="allow it in the guest (on Fedora and RHEL in /etc/sysconfig/qemu-ga), "
                "or leave `agent` out of `guest: connect:`",
            )

    async def reach(self) -> None:
        """Open the connection of a guest that does not run yet; see `AgentSession.reach`."""
        await self._session.reach()

    async def run(self, request: CommandRequest, deadline: Deadline) -> CommandOutcome:
        """Run a command to its end; see `Channel.run`.

        Raises ChannelError also when the command printed more than the 16 MiB that the agent keeps.
        """
        process = await self._started(request, deadline)
        try:
            async with asyncio.timeout(deadline.remaining):
                # A question is work for the processor that runs the command, and hardly any command is over
                # before half the time that its start took.
                await asyncio.sleep(self._start_seconds / 2)
                return await self._finish(process, request, deadline)
        except TimeoutError:
            partial = await self._end(process, request)
            raise command_timeout(
                self.vm_name, request, deadline, partial, ended=partial is not None
            ) from None
        except asyncio.CancelledError:
            self._later(self._end(process, request))
            raise

    async def close(self) -> None:
        """Disconnect; the next call connects again."""
        endings = list(self._endings)
        for task in endings:
            task.cancel()
        await asyncio.gather(*endings, return_exceptions=True)
        await self._session.close()

    async def _ask(self, command: str, arguments: Mapping[str, Any] | None, deadline: Deadline) -> Any:
        try:
            async with asyncio.timeout(deadline.remaining):
                return await self._session.ask(command, arguments)
        except TimeoutError:
            raise ChannelError(
                f"{self.vm_name}: the guest agent did not answer {command} within {deadline}"
            ) from None

    async def _started(self, request: CommandRequest, deadline: Deadline) -> int:
        """As `_start`, but a command whose start was cancelled or came too late is ended, not lost."""
        starting = asyncio.ensure_future(self._start(request, deadline))
        try:
            async with asyncio.timeout(deadline.remaining):
                return await asyncio.shield(starting)
        except TimeoutError:
            self._later(self._end_unwanted(starting, request))
            raise ChannelError(
                f"{self.vm_name}: the guest agent did not start the command within {deadline}: {request}"
            ) from None
        except asyncio.CancelledError:
            self._later(self._end_unwanted(starting, request))
            raise

    async def _start(self, request: CommandRequest, deadline: Deadline) -> int:
        """Start the command and return its process id in the guest."""
        arguments: dict[str, Any] = {"capture-output": True}
        prelude = ""
        async with self._session.held(deadline):
            if request.input is not None and len(request.input) > INPUT_PIECE:
                path = await self._store(request.input)
                prelude = f"exec <{path}; rm -f {path}"
            elif request.input:
                arguments["input-data"] = base64.b64encode(request.input).decode("ascii")
            if not prelude and (process := await self._exec_alone(request, arguments)) is not None:
                return process
            return await self._exec(command_script(request, prelude=prelude) + BECOME_COMMAND, arguments)

    async def _exec_alone(self, request: CommandRequest, arguments: Mapping[str, Any]) -> int | None:
        """As `_exec`, without a shell around the command's own, where there is nothing for it to do.

        Under emulation a shell costs some milliseconds. None where the guest has no setsid, or something is
        to be set first.
        """
        if self._lacks_setsid or request.env or request.cwd is not None:
            return None
        if not isinstance(request.command, str):
            return None  # a shell exports variables of its own (PWD), which a program may look for
        words = ["--", "/bin/sh", "-c", request.command]
        try:
            return await self._launch("setsid", words, arguments)
        except AgentRefused:
            self._lacks_setsid = True
            return None

    async def _exec(self, script: str, arguments: Mapping[str, Any], *words: str) -> int:
        return await self._launch("/bin/sh", ["-c", script, "sh", *words], arguments)

    async def _launch(self, path: str, words: Sequence[str], arguments: Mapping[str, Any]) -> int:
        asked = time.monotonic()
        answer = await self._answer("guest-exec", {"path": path, "arg": list(words), **arguments})
        self._start_seconds = time.monotonic() - asked
        return answer.number("pid")

    async def _answer(self, command: str, arguments: Mapping[str, Any]) -> Answer:
        return Answer(self.vm_name, command, await self._session.ask(command, arguments))

    async def _store(self, data: bytes) -> str:
        """Put `data` into a new file of the guest, piece by piece, and return its path."""
        path = f"/tmp/.maqet-input-{secrets.token_hex(8)}"  # noqa: S108 - a path in the guest
        handle = await self._session.ask("guest-file-open", {"path": path, "mode": "wb"})
        try:
            for start in range(0, len(data), INPUT_PIECE):
                piece = base64.b64encode(data[start : start + INPUT_PIECE]).decode("ascii")
                answer = await self._answer("guest-file-write", {"handle": handle, "buf-b64": piece})
                if answer.number("count") != len(data[start : start + INPUT_PIECE]):
                    raise ChannelError(f"{self.vm_name}: the guest took only a part of the command's input")
        finally:
            await self._session.ask("guest-file-close", {"handle": handle})
        return path

    async def _finish(self, process: int, request: CommandRequest, deadline: Deadline) -> CommandOutcome:
        """Wait for the end of a started command."""
        for pause in pauses(deadline):
            status = await self._status(process, deadline)
            if status.flag("exited"):
                return self._outcome(status, request)
            await asyncio.sleep(pause)  # the agent has no event for the end of a command
        raise TimeoutError

    async def _status(self, process: int, deadline: Deadline) -> Answer:
        try:
            async with self._session.held(deadline):
                return await self._answer("guest-exec-status", {"pid": process})
        except AgentRefused as error:
            raise ChannelError(
                f"{self.vm_name}: the guest agent no longer knows the command ({error.description})",
                hint="the agent or the guest was restarted while the command ran",
            ) from None

    def _outcome(self, status: Answer, request: CommandRequest) -> CommandOutcome:
        if any(status.flag(f"{name}-truncated", default=False) for name in ("out", "err")):
            raise ChannelError(
                f"{self.vm_name}: the command printed more than the guest agent keeps (16 MiB): {request}",
                hint="let it write to a file in the guest, or run it over another channel",
            )
        return status.outcome()

    async def _end(self, process: int, request: CommandRequest) -> CommandOutcome | None:
        """End a started command with all its children; what it had printed, or None if that failed."""
        grace = Deadline(END_GRACE)
        with contextlib.suppress(ChannelError, TimeoutError):
            async with asyncio.timeout(grace.remaining):
                async with self._session.held(grace):
                    ending = await self._exec(END_PROCESSES, {}, str(process), _SIGKILL)
                await self._finish(ending, request, grace)
                return await self._finish(process, request, grace)
        return None

    async def _end_unwanted(self, starting: asyncio.Future[int], request: CommandRequest) -> None:
        """End the command that `starting` may still bring forth."""
        with contextlib.suppress(ChannelError, TimeoutError):
            async with asyncio.timeout(END_GRACE):
                await self._end(await starting, request)

    def _later(self, work: Coroutine[Any, Any, object]) -> None:
        """Do `work` without making a cancelled caller wait for it."""
        task = asyncio.ensure_future(work)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
