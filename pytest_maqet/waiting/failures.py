"""What ends every wait at once: a guest panic, a pattern of `fail_on`, a full disk, or QEMU's death."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pytest_maqet.errors import DiskError, GuestPanic, MaqetError, QemuDied
from pytest_maqet.guest.console_log import LONGEST_MATCH, ConsoleLog

#: An unfinished line counts as finished after this many seconds without more output.
SETTLE = 0.02

#: What a guest does not go on after, by the failures' names; a pattern says no more than that it was seen.
_FINAL = ("pvpanic", "panic", "died", "disk")

#: Events and run states that tell of a failure, and the failure that does not end a wait for them.
_EVENTS: dict[str, tuple[type[MaqetError], ...]] = {
    "GUEST_PANICKED": (GuestPanic,),
    "BLOCK_IO_ERROR": (DiskError,),
    "STOP": (DiskError,),
    "RESUME": (DiskError,),
}
_STATES: dict[str, tuple[type[MaqetError], ...]] = {
    "guest-panicked": (GuestPanic,),
    "io-error": (DiskError,),
}


def told_by(*events: str) -> tuple[type[MaqetError], ...]:
    """The failures that these events tell of; no name stands for all events."""
    return tuple({kind for name in events or _EVENTS for kind in _EVENTS.get(name, ())})


def told_by_state(state: str) -> tuple[type[MaqetError], ...]:
    """The failures that this run state tells of."""
    return _STATES.get(state, ())


@dataclass
class Failure:
    """One failure of a VM.

    `seen` is set when a wait or command raised it, `excused` when a test expected it.
    """

    kind: type[MaqetError]
    name: str
    text: str
    build: Callable[[], MaqetError]
    seen: bool = False
    excused: bool = False
    raised: list[MaqetError] = field(default_factory=list)

    def error(self) -> MaqetError:
        """The error to raise, with the console as it is now; remembered, so that its origin can be told."""
        error = self.build()
        self.raised.append(error)
        return error


@dataclass(eq=False)
class Expectation:
    """A failure that a test wants to happen; filled in by `FailureWatch` when it did."""

    kind: type[MaqetError]
    match: re.Pattern[str] | None = None
    pattern: re.Pattern[str] | None = None
    caught: list[Failure] = field(default_factory=list)

    def covers(self, failure: Failure) -> bool:
        """Whether `failure` is the expected one."""
        if not issubclass(failure.kind, self.kind):
            return False
        if self.pattern is not None and not self.pattern.search(failure.text):
            return False
        return self.match is None or self.match.search(failure.text) is not None


class FailureWatch:
    """The failures of one QEMU process; loop-thread only.

    `blocking` is what ends waits now; a reset of the guest clears a panic, nothing clears QEMU's death.
    """

    def __init__(
        self,
        vm_name: str,
        patterns: tuple[tuple[str, str], ...],
        context: Callable[[], str],
        wake: Callable[[], None],
    ) -> None:
        self._wake = wake
        self._vm_name = vm_name
        self._patterns = [(name, re.compile(pattern, re.MULTILINE)) for name, pattern in patterns]
        self._context = context
        self._scanned: dict[ConsoleLog, int] = {}
        #: where this life begins on each console
        self._began: dict[ConsoleLog, int] = {}
        self._current: list[Failure] = []
        self._since_mark: list[Failure] = []
        self._expectations: list[Expectation] = []
        #: whether the guest has panicked since its last reset, expected or not
        self.panicked = False

    def mark(self) -> None:
        """A new test begins: what was before it is not its failure, unless the VM is still in that state."""
        self._since_mark = []
        self._current = [failure for failure in self._current if failure.name in _FINAL]

    def skip(self, console: ConsoleLog) -> None:
        """What this console has said so far is not looked at."""
        self._scanned[console] = self._began[console] = console.end

    def go_on_from(self, earlier: FailureWatch) -> None:
        """Another QEMU of the same VM runs: what was expected of the one before is expected of it."""
        self._expectations = earlier._expectations  # the same list: its owner ends an expectation in either
        for failure in self._current:  # of the moments since its start
            self._hand_over(failure)
        self._scanned = dict(self._began)
        for console in self._began:
            self.scan(console)

    def scan(self, console: ConsoleLog, *, settled: bool = False) -> None:
        """Look for the patterns in what the console said since the last scan, line by line.

        A line that is not finished yet is looked at when it is, or when nothing came for `SETTLE` seconds
        (`settled`): what the guest says at the line's end belongs to the failure.
        """
        start = self._scanned.get(console, 0)
        text = console.text(start)
        unfinished = text.rfind("\n") + 1
        endless = len(text) - unfinished > LONGEST_MATCH  # else each piece of it would be looked at again
        if unfinished < len(text) and not settled and not endless:
            self._come_back(console)
            text = text[:unfinished]
        wanted = [*self._patterns, *((e.pattern.pattern, e.pattern) for e in self._expectations if e.pattern)]
        found = [(match.start(), name, match) for name, pattern in wanted if (match := pattern.search(text))]
        for position, name, match in sorted(found, key=lambda hit: hit[:2]):
            line_start = text.rfind("\n", 0, position) + 1
            self._add_console_failure(name, match, console, start + line_start)
        self._scanned[console] = start + (len(text) if found or endless else unfinished)

    def _come_back(self, console: ConsoleLog) -> None:
        """Look again when the console has been quiet for a moment."""
        end = console.end

        def look() -> None:
            if console.end == end:
                before = len(self._current)
                self.scan(console, settled=True)
                if len(self._current) != before:
                    self._wake()

        asyncio.get_running_loop().call_later(SETTLE, look)

    def _add_console_failure(self, name: str, match: re.Match[str], log: ConsoleLog, at: int) -> None:
        if self._known(name):
            return

        def build() -> MaqetError:
            line = log.text(at, at + 400).split("\n", 1)[0]
            what = "panicked" if name == "panic" else f"showed the failure pattern {name!r}"
            return GuestPanic(
                f"{self._vm_name}: the guest {what}: {line.strip()!r}\n{self._context()}",
                pattern=name,
                text=line,
                hint=None if name == "panic" else "expected? use vm.expecting(...) or `fail_on:` in the YAML",
            )

        line = match.string[match.string.rfind("\n", 0, match.start()) + 1 :].split("\n", 1)[0]
        self.add(Failure(GuestPanic, name, line, build))

    def guest_panicked(self, data: dict[str, Any]) -> None:
        """The guest told QEMU of its panic (pvpanic; event GUEST_PANICKED)."""

        def build() -> MaqetError:
            return GuestPanic(
                f"{self._vm_name}: the guest panicked (it told QEMU so, action {data.get('action')!r})\n"
                + self._context(),
                pattern="pvpanic",
                text=text,
            )

        text = "the guest panicked"
        if self._known("pvpanic"):
            return
        self.add(Failure(GuestPanic, "pvpanic", text, build))

    def _known(self, name: str) -> bool:
        """Whether this failure was told already; a panic is told by the console and by pvpanic both."""
        names = {"panic", "pvpanic"} if name in ("panic", "pvpanic") else {name}
        return any(failure.name in names for failure in self._current)

    def disk_failed(self, build: Callable[[], DiskError]) -> None:
        """QEMU has paused the VM, because a disk of the host is full or broken."""
        if not self._known("disk"):
            self.add(Failure(DiskError, "disk", "the host's disk", build))

    def resumed(self) -> None:
        """The guest goes on, and QEMU tries its disks again."""
        self._current = [failure for failure in self._current if failure.name != "disk"]

    def died(self, build: Callable[[], QemuDied], *, wanted: bool) -> None:
        """QEMU's process has ended; `wanted` when we asked for it, which is no fault of the test."""
        self.add(Failure(QemuDied, "died", "QEMU died", build, seen=wanted))

    def add(self, failure: Failure) -> None:
        """Keep a failure, and hand it to whoever expects it."""
        if failure.kind is GuestPanic and failure.name in ("panic", "pvpanic"):
            self.panicked = True
        self._hand_over(failure)
        self._current.append(failure)
        self._since_mark.append(failure)

    def _hand_over(self, failure: Failure) -> None:
        for expectation in self._expectations:
            if expectation.covers(failure):
                failure.excused = True
                expectation.caught.append(failure)

    def guest_reset(self) -> None:
        """The guest starts anew: its panic is over. A VM that a full disk has paused stays paused."""
        self.panicked = False
        self._current = [one for one in self._current if one.kind is QemuDied or one.name == "disk"]

    def expect(self, expectation: Expectation) -> None:
        """From here on `expectation` catches its failure."""
        self._expectations.append(expectation)

    def unexpect(self, expectation: Expectation) -> None:
        """End an expectation."""
        if expectation in self._expectations:
            self._expectations.remove(expectation)

    def blocking(
        self, tolerates: tuple[type[MaqetError], ...] = (), *, even_excused: bool = False
    ) -> Failure | None:
        """The failure that ends waits now, but for kinds in `tolerates`; QEMU's death goes before a panic.

        `even_excused` is for what can never complete after it, as a command that runs in the guest. A pattern
        that was expected is over with its `expecting` block.
        """
        caught = [failure for expectation in self._expectations for failure in expectation.caught]
        open_ones = [
            failure
            for failure in self._current
            if (not failure.excused or (even_excused and (failure.name in _FINAL or failure in caught)))
            and not issubclass(failure.kind, tolerates)
        ]
        return next((f for f in open_ones if f.kind is QemuDied), open_ones[0] if open_ones else None)

    def panic(self) -> Failure | None:
        """The guest's panic since its last reset, expected or not."""
        return next((f for f in self._current if f.name in ("panic", "pvpanic")), None)

    def death_was_told(self) -> bool:
        """Whether a wait raised QEMU's death, or a test expected it."""
        return any(one.kind is QemuDied and (one.seen or one.excused) for one in self._current)

    def tell_death(self) -> None:
        """QEMU's death, if it has died, is told now in another way."""
        for failure in self._current:
            failure.seen = failure.seen or failure.kind is QemuDied

    def unseen(self) -> Failure | None:
        """A panic, pattern or full disk since the mark that no wait raised and nobody expected."""
        for failure in self._since_mark:
            if failure.kind is not QemuDied and not failure.seen and not failure.excused:
                return failure
        return None
