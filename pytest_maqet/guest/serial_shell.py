"""Commands over a shell on the serial console.

A command runs in the background of the guest's shell, with its outputs in files: the console is free while
it runs, several can run at once, and both outputs come back apart, byte for byte. How the pieces travel is
in `serial_transfer`, what is typed in `serial_helper`, what is answered in `serial_frames`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Coroutine
from typing import Any

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError
from pytest_maqet.guest.commands import END_GRACE, CommandOutcome, CommandRequest, command_timeout
from pytest_maqet.guest.console_log import ConsoleLog
from pytest_maqet.guest.serial_frames import LONGEST_INLINE, Frame, FrameReader, inline_outputs
from pytest_maqet.guest.serial_helper import LONGEST_LINE, new_identity
from pytest_maqet.guest.serial_link import SerialLink
from pytest_maqet.guest.serial_login import GuestAccess
from pytest_maqet.guest.serial_port import LineWriter
from pytest_maqet.guest.serial_transfer import fetch_file, send_file
from pytest_maqet.guest.shell_script import command_script
from pytest_maqet.loop import Pulse

#: Seconds without an answer after which a running command is asked for, and the most between two questions.
FIRST_QUESTION = 1.0
LAST_QUESTION = 20.0
#: So many questions without any answer, and the shell is looked for anew.
_UNANSWERED = 2
#: Ended commands leave small files in the guest; so many are deleted at once, along with the next command.
_DELETED_TOGETHER = 8


class SerialShell:
    """The shell on one serial line as a channel; loop-thread only."""

    name = "console"

    def __init__(
        self, log: ConsoleLog, line: LineWriter, changed: Pulse, access: GuestAccess, vm_name: str
    ) -> None:
        self.vm_name = vm_name
        self._link = SerialLink(log, line, changed, access, vm_name)
        self._done: list[str] = []  # commands whose files the guest may delete
        self._tasks: set[asyncio.Task[object]] = set()

    @property
    def typing(self) -> asyncio.Lock:
        """Held while lines are typed that belong together."""
        return self._link.typing

    async def probe(self, deadline: Deadline) -> None:
        """Return as soon as a shell answers; logs in and installs the helper where that is needed.

        Raises ChannelError at the deadline, or at once when the guest lacks what this channel needs.
        """
        try:
            async with asyncio.timeout(deadline.remaining), self._link.typing:
                self._link.forget()
                await self._link.ready(deadline)
        except TimeoutError:
            raise self._link.silence(deadline) from None

    async def run(self, request: CommandRequest, deadline: Deadline) -> CommandOutcome:
        """Run a command to its end; see `Channel.run`."""
        command = _Command(self._link, request)
        try:
            async with asyncio.timeout(deadline.remaining):
                await command.start(deadline, self._take_done())
                outcome = await command.outcome(deadline)
        except TimeoutError:
            partial = await command.end()
            if not command.known:
                raise self._link.silence(deadline) from None
            raise command_timeout(
                self.vm_name, request, deadline, partial, ended=partial is not None
            ) from None
        except asyncio.CancelledError:
            self._later(command.end())
            raise
        self._done.append(command.identity)
        return outcome

    async def close(self) -> None:
        """Stop what is under way; the next call looks for the shell again."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._link.forget()

    def _take_done(self) -> list[str]:
        if len(self._done) < _DELETED_TOGETHER:
            return []
        taken, self._done = self._done[:_DELETED_TOGETHER], self._done[_DELETED_TOGETHER:]
        return taken

    def _later(self, work: Coroutine[Any, Any, object]) -> None:
        """Do `work` without making a cancelled caller wait for it."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Command:
    """One command in the guest, from its start to its outcome."""

    def __init__(self, link: SerialLink, request: CommandRequest) -> None:
        self.identity = new_identity()
        #: whether the guest has answered anything about it
        self.known = False
        self._running = False
        self._unwanted = False
        self._link = link
        self._request = request
        self._reader: FrameReader = link.reader(self.identity)
        self._call: tuple[str, ...] = ()

    async def start(self, deadline: Deadline, done: list[str]) -> None:
        """Bring the command into the guest and start it; the guest deletes the files of those in `done`."""
        script = command_script(self._request).encode("utf-8", "surrogateescape")
        typed = base64.b64encode(script).decode("ascii")
        if self._request.input is None and len(typed) + 9 * len(done) < LONGEST_LINE - 160:
            self._call = ("r", self.identity, typed, *done)
        else:
            await send_file(self._link, self.identity, "job", script, deadline)
            if self._request.input is not None:
                await send_file(self._link, self.identity, "in", self._request.input, deadline)
            self.known = True
            self._call = ("x", self.identity)
        await self._link.call(deadline, *self._call)

    async def outcome(self, deadline: Deadline) -> CommandOutcome:
        """Wait for the end, and fetch what was printed.

        Raises ChannelError when the guest has forgotten the command: it was restarted.
        """
        while True:
            ending = await self._ending(deadline)
            if max(ending.number(1), ending.number(2)) > LONGEST_INLINE:
                return await self._fetched(ending, deadline)
            printed = inline_outputs(ending)
            if printed is not None:
                return CommandOutcome(ending.number(0), *printed)
            await self._link.call(deadline, "s", self.identity)  # a foreign word got into the answer

    async def end(self) -> CommandOutcome | None:
        """End the command with all its children; what it had printed, or None if that failed."""
        self._unwanted = True
        grace = Deadline(END_GRACE)
        with contextlib.suppress(ChannelError, TimeoutError):
            async with asyncio.timeout(grace.remaining):
                await self._link.call(grace, "k", self.identity, "KILL")
                return await self.outcome(grace)
        return None

    async def _fetched(self, ending: Frame, deadline: Deadline) -> CommandOutcome:
        outputs = []
        for name, size in (("out", ending.number(1)), ("err", ending.number(2))):
            data = b""
            if size:
                data = await fetch_file(self._link, self.identity, name, size, deadline)
            outputs.append(data)
        await self._link.call(deadline, "d", self.identity)  # may be large: not left for later
        return CommandOutcome(ending.number(0), *outputs)

    async def _ending(self, deadline: Deadline) -> Frame:
        pause = FIRST_QUESTION
        unanswered = 0
        while True:
            answer = await self._reader.next("ewun", pause)
            if answer is not None:
                unanswered = 0
                self.known = True
                if answer.kind == "e" and answer.number(0) >= 0:
                    return answer
                await self._react(answer, deadline)
                continue
            unanswered += 1
            if unanswered > _UNANSWERED:
                self._link.forget()
            await self._link.call(deadline, "s", self.identity)
            pause = min(pause * 2, LAST_QUESTION)

    async def _react(self, answer: Frame, deadline: Deadline) -> None:
        """The guest still runs it (w), has never heard of it (u), or has lost the helper (n)."""
        if answer.kind == "w":
            self._running = True
            return
        if self._running or self._unwanted or self._call[0] == "x":
            raise ChannelError(
                f"{self._link.vm_name}: the guest has forgotten the command: {self._request}",
                hint="it was restarted, or its shell's files were deleted, while the command ran",
            )
        if answer.kind == "n":
            self._link.forget()
        await self._link.call(deadline, *self._call)
