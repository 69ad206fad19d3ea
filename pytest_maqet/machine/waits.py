"""`vm.wait`: every way to wait for a VM, blocking, with the mark and mailbox rules.

All of them take `timeout` in seconds (default: the VM's `timeouts: wait`), raise WaitTimeout when it is over,
and fail at once with the cause when the guest panics or QEMU dies.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pytest_maqet.deadline import Deadline, enclosing, pauses
from pytest_maqet.errors import GuestPanic, MaqetError
from pytest_maqet.guest.commands import CompletedCommand
from pytest_maqet.guest.console_log import LONGEST_MATCH
from pytest_maqet.machine.named_conditions import named_condition
from pytest_maqet.runs.exit_status import Exit
from pytest_maqet.waiting.engine import Condition, timed_out, wait_for
from pytest_maqet.waiting.http_answer import HttpAnswer
from pytest_maqet.waiting.probed import AgentAnswers, CommandStatus, HttpAnswers, PortClosed, PortOpen
from pytest_maqet.waiting.pushed import (
    ConsoleText,
    EventCame,
    GuestPanicked,
    GuestShutdown,
    QemuExited,
    StatusIs,
)
from pytest_maqet.waiting.standstill import beginning

if TYPE_CHECKING:
    from pytest_maqet.machine.core import MachineCore

T = TypeVar("T")
Since = Literal["mark", "start", "now"]


class Waits:
    """The waits of one VM.

    `since`: "mark" reads on from this thread's cursor, which starts at the beginning of the test's set-up or
    at the VM's own ready, if that is later; "start" searches all there is; "now" only what is to come.
    """

    def __init__(self, vm: MachineCore) -> None:
        self._vm = vm

    def ready(self, timeout: float | None = None) -> None:
        """Wait until every condition of the VM's `ready:` list holds (default time: `timeouts: ready`)."""
        self._vm.wait_ready(timeout)

    def console(
        self,
        pattern: str,
        *,
        fail: str | None = None,
        timeout: float | None = None,
        since: Since = "mark",
        raw: bool = False,
        console: str | None = None,
    ) -> re.Match[str]:
        """Wait for a regular expression (re.MULTILINE) in the console's text and return the match.

        `fail` is a pattern that ends the wait with GuestPanic if it comes first. `console` names a serial
        port, by default the first. `raw` searches what the guest sent, with escapes and carriage returns
        (each byte one character). Matches are searched onward from the cursor, which moves past each match.
        """
        if raw:
            return self._raw_console(pattern, timeout, since, console)
        return self._do(self.console_condition(pattern, fail, since, console), self._deadline(timeout))

    def event(
        self, name: str, *, timeout: float | None = None, since: Since = "mark", **data: Any
    ) -> Mapping[str, Any]:
        """Wait for a QMP event with these members in its data; returns `{"event", "data", "timestamp"}`.

        Events are a mailbox: the oldest match since the mark that no wait has taken, in any order.
        """
        return self._do(self.event_condition(name, since, data), self._deadline(timeout))

    def status(self, wanted: str, *, timeout: float | None = None) -> str:
        """Wait for a run state of QEMU, such as "running" or "paused" (RunState in QEMU's QMP reference)."""
        deadline = self._deadline(timeout)
        return self._do(self.status_condition(wanted, deadline), deadline)

    def port(self, port: int, *, banner: str | None = None, timeout: float | None = None) -> bytes:
        """Wait for a listener on a TCP port of the guest; returns the bytes of its banner if one was read.

        Asked inside the guest where there is a channel. With `banner` (a regular expression), or without a
        channel, bytes received through the forwarded port are the proof: a connection proves nothing.
        """
        deadline = self._deadline(timeout)
        return self._do(self.port_condition(port, banner, deadline), deadline)

    def closed(self, port: int, *, timeout: float | None = None) -> None:
        """Wait until nothing listens on a TCP port of the guest, asked inside it."""
        deadline = self._deadline(timeout)
        self._do(PortClosed(self._vm.life, port, deadline), deadline)

    def http(
        self, port: int = 80, path: str = "/", *, status: int = 200, timeout: float | None = None
    ) -> HttpAnswer:
        """Wait until GET `path` on a port of the guest is answered with `status`; returns the answer."""
        deadline = self._deadline(timeout)
        return self._do(HttpAnswers(self._vm.life, port, deadline, path=path, status=status), deadline)

    def agent(self, *, timeout: float | None = None) -> None:
        """Wait until the guest agent answers."""
        deadline = self._deadline(timeout)
        self._do(AgentAnswers(self._vm.life, deadline), deadline)

    def succeeds(self, command: str, *, timeout: float | None = None) -> CompletedCommand:
        """Run a shell command in the guest until it ends with status 0; returns that run's result."""
        deadline = self._deadline(timeout)
        return self._do(CommandStatus(self._vm.life, command, deadline, wanted=True), deadline)

    def fails(self, command: str, *, timeout: float | None = None) -> CompletedCommand:
        """Run a shell command in the guest until it ends with another status than 0; returns that result."""
        deadline = self._deadline(timeout)
        return self._do(CommandStatus(self._vm.life, command, deadline, wanted=False), deadline)

    def shutdown(self, *, timeout: float | None = None) -> str:
        """Wait until the guest has powered off; returns QEMU's reason, such as "guest-shutdown"."""
        return self._do(GuestShutdown(self._vm.life.vitals), self._deadline(timeout))

    def exit(self, *, timeout: float | None = None) -> Exit:
        """Wait until QEMU's process has ended; a guest that has powered off is the end of it."""
        return self._do(QemuExited(self._vm.life.vitals, self._vm.life.finish), self._deadline(timeout))

    def panic(self, *, timeout: float | None = None) -> GuestPanic:
        """Wait for the guest's panic and return it; it fails no wait and no test after that."""
        return self._do(GuestPanicked(self._vm.life.vitals), self._deadline(timeout))

    def until(
        self, function: Callable[[], T], *, message: str | None = None, timeout: float | None = None
    ) -> T:
        """Call `function` until what it returns is true, and return that. It runs in the caller's thread.

        Waits and commands in it end with this wait, whatever time they are given (or `LAST_LOOK` later).
        An AssertionError or MaqetError that it raises counts as "not yet"; the error at the end is raised
        from the last one.
        """
        deadline = self._deadline(timeout)
        what = message or str(getattr(function, "__name__", repr(function)))
        seen = ""
        began = beginning(self._vm.life.vitals)
        last: Exception | None = None
        late = False
        for pause in pauses(deadline):
            if late and not pause:
                break  # the look before ended after the deadline: it was the last one
            self._vm.pause_watchfully(0.0)
            try:
                with enclosing(deadline):
                    value = function()
            except (AssertionError, MaqetError) as error:
                self._vm.pause_watchfully(0.0)
                last, seen = error, f"{type(error).__name__}: {error}"
            else:
                if value:
                    return value
                last, seen = None, f"it returned {value!r}"
            late = deadline.expired
            if pause:
                self._vm.pause_watchfully(pause)
        raise timed_out(self._vm.life.vitals, what, seen, deadline, began) from last

    def all(self, *conditions: Mapping[str, Any], timeout: float | None = None, **named: Any) -> list[Any]:
        """Wait until all conditions hold, in any order; returns their values in order.

        Conditions are written as in `ready:` — `wait.all({"console": "ready"}, {"event": "RESET"})`, or for
        one of each kind `wait.all(console="ready", port=22)`. Each starts from the same cursor, and the
        cursor moves to the furthest end.
        """
        deadline = self._deadline(timeout)
        wanted = [*conditions, *({kind: value} for kind, value in named.items())]
        for one in wanted:
            if not isinstance(one, Mapping):
                raise TypeError(f"wait.all takes conditions as in `ready:`, not {one!r}; see wait.until")
        made = [self.make(kind, value, deadline) for one in wanted for kind, value in one.items()]
        return self._vm.wait_all(made, deadline)

    # -- making conditions ---------------------------------------------------------------------------------

    def make(self, kind: str, arguments: Any, deadline: Deadline) -> Condition[Any]:
        """The condition of one entry of `ready:` or of `wait.all`; see `named_conditions`."""
        return named_condition(self, self._vm, kind, arguments, deadline)

    def status_condition(self, wanted: str, deadline: Deadline) -> StatusIs:
        """A run state of QEMU."""
        life = self._vm.life
        return StatusIs(life.vitals, wanted, lambda: life.run_state(deadline))

    def port_condition(self, port: int, banner: str | None, deadline: Deadline) -> PortOpen:
        """A listener in the guest, or its banner."""
        compiled = re.compile(banner.encode(), re.MULTILINE) if banner else None
        return PortOpen(self._vm.life, port, deadline, banner=compiled)

    def console_condition(
        self, pattern: str, fail: str | None, since: Since, console: str | None
    ) -> ConsoleText:
        """Text on a console, with this thread's cursor."""
        vitals = self._vm.life.vitals
        name = self._vm.console_name(console)
        log = vitals.consoles[name]
        thread = threading.get_ident()
        return ConsoleText(
            vitals,
            log,
            re.compile(pattern, re.MULTILINE),
            self._vm.console_position(name, since),
            fail=re.compile(fail, re.MULTILINE) if fail else None,
            settled=lambda position: self._vm.cursors.move(name, thread, position),
        )

    def event_condition(self, name: str, since: Since, data: Mapping[str, Any]) -> EventCame:
        """A QMP event."""
        vitals = self._vm.life.vitals
        known = {"mark": None, "start": 0, "now": vitals.mailbox.count}
        if since not in known:
            raise ValueError(f'since must be "mark", "start" or "now", not {since!r}')
        number = known[since]
        return EventCame(vitals, name, data, number)

    def _raw_console(
        self, pattern: str, timeout: float | None, since: Since, console: str | None
    ) -> re.Match[str]:
        compiled = re.compile(pattern, re.MULTILINE)
        name = self._vm.console_name(console)
        log = self._vm.life.vitals.consoles[name]
        start = log.raw_end if since == "now" else 0 if since == "start" else self._vm.raw_mark(name)
        found: list[re.Match[str] | None] = [None]
        begin, text = start, ""

        def look() -> bool:
            nonlocal begin, text
            while found[0] is None:
                at, data = log.raw(begin + len(text))
                if not data:
                    return False
                # What was searched is kept as far as a match may reach back.
                kept = text[-LONGEST_MATCH:] if at == begin + len(text) else ""
                begin, text = at - len(kept), kept + data.decode("latin-1")
                found[0] = compiled.search(text)
            return True

        self.until(look, message=f"/{pattern}/ in the console's raw output", timeout=timeout)
        assert found[0] is not None
        return found[0]

    def _deadline(self, timeout: float | None) -> Deadline:
        return self._vm.deadline(timeout, self._vm.config.timeouts.wait)

    def _do(self, condition: Condition[T], deadline: Deadline) -> T:
        return self._vm.on_loop(wait_for(self._vm.life.vitals, condition, deadline))
