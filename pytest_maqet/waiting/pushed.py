"""Conditions that the VM itself tells us of: console text, QMP events, shutdown, exit, panic."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pytest_maqet.errors import GuestPanic, MaqetError, QemuDied
from pytest_maqet.guest.console_log import ConsoleLog
from pytest_maqet.qemu.events import Event
from pytest_maqet.runs.exit_status import Exit
from pytest_maqet.waiting.failures import told_by, told_by_state
from pytest_maqet.waiting.vitals import Vitals

#: A match that ends where the output ends is looked at again after this many seconds without more output:
#: "port (\\d+)" must not be content with the first digits of a number.
SETTLE = 0.01


class ConsoleText:
    """A regular expression in a console's text from `start` on; value: the match.

    `fail` is a pattern that ends the wait with GuestPanic when it comes first. `position` is where the match
    ended, once there is one.
    """

    tolerates: tuple[type[MaqetError], ...] = ()

    def __init__(
        self,
        vitals: Vitals,
        console: ConsoleLog,
        pattern: re.Pattern[str],
        start: int,
        *,
        fail: re.Pattern[str] | None = None,
        settled: Callable[[int], None] = lambda _position: None,
    ) -> None:
        self._vitals = vitals
        self._console = console
        self._pattern = pattern
        self._fail = fail
        self._start = start
        self._searched = start
        self._settled = settled
        self._skipped_before = console.skipped
        self.position = start

    def describe(self) -> str:
        """The pattern, as the caller wrote it."""
        return f"/{self._pattern.pattern}/ on the console"

    def last_seen(self) -> str:
        """How much output was searched."""
        seen = f"{self._console.end - self._start} characters of console output since the wait's mark"
        lost = self._console.skipped - self._skipped_before
        return f"{seen}; it came so fast that {lost} bytes were cut unread" if lost else seen

    async def hold(self) -> re.Match[str]:
        """Search again after each piece of output; a match at its very end may still become longer."""
        while True:
            end = self._console.end
            found = self._console.search(self._pattern, self._start, self._searched)
            failed = self._failed_before(found)
            hit = failed or found
            if hit is None:
                self._searched = end
                await self._vitals.pulse.wait()
            elif hit[1] < end or await self._is_quiet(end):
                if failed is not None:
                    raise self._failure(failed[0].group(0))
                match, self.position = hit
                return match

    def settle(self) -> None:
        """Move the cursor behind the match."""
        self._settled(self.position)

    def _failed_before(self, found: tuple[re.Match[str], int] | None) -> tuple[re.Match[str], int] | None:
        """The match of `fail`, unless the wanted one ends before it."""
        if self._fail is None:
            return None
        bad = self._console.search(self._fail, self._start, self._searched)
        return bad if bad is None or found is None or bad[1] < found[1] else None

    def _failure(self, line: str) -> GuestPanic:
        assert self._fail is not None
        return GuestPanic(
            f"{self._vitals.vm_name}: the console showed /{self._fail.pattern}/ while waiting for "
            f"{self.describe()}: {line!r}\n{self._vitals.context()}",
            pattern=self._fail.pattern,
            text=line,
        )

    async def _is_quiet(self, end: int) -> bool:
        try:
            async with asyncio.timeout(SETTLE):
                while self._console.end == end:
                    await self._vitals.pulse.wait()
        except TimeoutError:
            return True
        return False


class EventCame:
    """A QMP event; value: QEMU's object `{"event", "data", "timestamp"}`.

    With `since` None the oldest one that no wait has taken since the mark, else the oldest from that number.
    """

    def __init__(self, vitals: Vitals, name: str, data: Mapping[str, Any], since: int | None = None) -> None:
        self.tolerates: tuple[type[MaqetError], ...] = told_by(name)
        self._vitals = vitals
        self._name = name
        self._data = data
        self._since = since
        self._found: Event | None = None
        self._searched = 0

    def describe(self) -> str:
        """The event's name and data."""
        wanted = f" with {dict(self._data)}" if self._data else ""
        return f"the QMP event {self._name}{wanted}"

    def last_seen(self) -> str:
        """The events that did come."""
        mailbox = self._vitals.mailbox
        names = [event.name for event in mailbox.untaken()]
        seen = f"events not taken: {', '.join(names[-10:]) or 'none'}"
        gone = mailbox.dropped - (self._since or 0)
        return f"{seen}; the {mailbox.dropped} oldest ones of all are no longer kept" if gone > 0 else seen

    async def hold(self) -> Mapping[str, Any]:
        """Look again after each event."""
        while True:
            mailbox = self._vitals.mailbox
            self._found = mailbox.find(self._name, self._data, self._since, self._searched)
            if self._found is not None:
                return self._found.message
            self._searched = mailbox.count
            await self._vitals.pulse.wait()

    def settle(self) -> None:
        """Take the event out of the mailbox."""
        if self._found is not None:
            self._vitals.mailbox.take(self._found)


class StatusIs:
    """A run state of QEMU, as `query-status` tells it; asked again after each event. Value: the state."""

    def __init__(self, vitals: Vitals, wanted: str, query: Callable[[], Awaitable[str]]) -> None:
        self.tolerates: tuple[type[MaqetError], ...] = told_by_state(wanted)
        self._vitals = vitals
        self._wanted = wanted
        self._query = query
        self._seen = ""

    def describe(self) -> str:
        """The wanted state."""
        return f"the run state {self._wanted!r}"

    def last_seen(self) -> str:
        """The state at the last look."""
        return f"run state {self._seen!r}"

    async def hold(self) -> str:
        """Ask now and after each event."""
        while True:
            events = self._vitals.mailbox.count
            self._seen = await self._query()
            if self._seen == self._wanted:
                return self._seen
            while self._vitals.mailbox.count == events:
                await self._vitals.pulse.wait()

    def settle(self) -> None:
        """Nothing to take."""


class GuestShutdown:
    """The guest has powered off (event SHUTDOWN) or QEMU has ended well; value: QEMU's reason."""

    tolerates: tuple[type[MaqetError], ...] = (QemuDied,)

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals
        self._event = EventCame(vitals, "SHUTDOWN", {})
        self._from_event = False

    def describe(self) -> str:
        """Speak of it as users do."""
        return "the guest to power off"

    def last_seen(self) -> str:
        """The events that did come."""
        return self._event.last_seen()

    async def hold(self) -> str:
        """The event, or the end of the process where none came."""
        while True:
            if self._vitals.mailbox.find("SHUTDOWN", {}) is not None:
                message = await self._event.hold()
                self._from_event = True
                return str(message.get("data", {}).get("reason", "unknown"))
            if self._vitals.powered_off is not None:
                return self._vitals.powered_off
            if self._vitals.exit is not None:
                if self._vitals.exit.code == 0 or self._vitals.end_wanted:
                    return self._vitals.exit.reason
                raise self._vitals.death()
            await self._vitals.pulse.wait()

    def settle(self) -> None:
        """Take the event."""
        if self._from_event:
            self._event.settle()


class QemuExited:
    """QEMU's process has ended; value: its `Exit`.

    A guest that powers off leaves QEMU paused in the state `shutdown` (`-action shutdown=pause`): that is the
    guest's end, so `quit` follows, which `finish` does.
    """

    tolerates: tuple[type[MaqetError], ...] = (QemuDied,)

    def __init__(self, vitals: Vitals, finish: Callable[[], Awaitable[None]]) -> None:
        self._vitals = vitals
        self._finish = finish

    def describe(self) -> str:
        """Speak of it as users do."""
        return "QEMU's process to end"

    def last_seen(self) -> str:
        """The events that did come."""
        names = [event.name for event in self._vitals.mailbox.untaken()]
        return f"QEMU runs; events: {', '.join(names[-10:]) or 'none'}"

    async def hold(self) -> Exit:
        """The end of the process; after a power-off we see to it."""
        finished = False
        while self._vitals.exit is None:
            if not finished and self._vitals.powered_off is not None:
                finished = True
                await self._finish()
                continue
            await self._vitals.pulse.wait()
        self._vitals.failures.tell_death()
        return self._vitals.exit

    def settle(self) -> None:
        """Nothing to take."""


class GuestPanicked:
    """The guest panicked (pvpanic, or the console's panic pattern); value: the GuestPanic, not raised."""

    tolerates: tuple[type[MaqetError], ...] = (GuestPanic,)

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals

    def describe(self) -> str:
        """Speak of it as users do."""
        return "the guest to panic"

    def last_seen(self) -> str:
        """The events that did come."""
        names = [event.name for event in self._vitals.mailbox.untaken()]
        return f"events: {', '.join(names[-10:]) or 'none'}"

    async def hold(self) -> GuestPanic:
        """Look again whenever anything changed."""
        while True:
            failure = self._vitals.failures.panic()
            if failure is not None:
                failure.seen = True
                failure.excused = True
                error = failure.error()
                assert isinstance(error, GuestPanic)
                return error
            await self._vitals.pulse.wait()

    def settle(self) -> None:
        """Nothing to take."""
