"""What stands behind every call of a handle: the loop, deadlines, marks, ready, failures, and the end.

Tests use `VirtualMachine`, the manager uses this: marks, health, relaunch and close are its business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pytest_maqet.config import ReadyWait, VmConfig
from pytest_maqet.deadline import Deadline, enclosed
from pytest_maqet.errors import ChannelError, CommandTimeout, MaqetError, NotSupported, QemuDied, WaitTimeout
from pytest_maqet.guest.wake_port import WakeAnswer
from pytest_maqet.loop import LoopThread, lease_loop, release_loop, rest_loop, wake_loop
from pytest_maqet.machine import power, ready, starting
from pytest_maqet.machine.cursors import Cursors
from pytest_maqet.machine.host import Host, Room
from pytest_maqet.machine.life import Life
from pytest_maqet.machine.removal import remove_tree
from pytest_maqet.machine.shared_use import SharedUse
from pytest_maqet.machine.waits import Waits
from pytest_maqet.waiting.engine import Condition, race
from pytest_maqet.waiting.standstill import is_stopped, standstill

T = TypeVar("T")


class MachineCore:
    """The inner side of a VM's handle."""

    #: QEMU's crash that was found when it was ended, and told by no call before.
    crash: QemuDied | None = None

    def __init__(self, config: VmConfig, host: Host, life: Life, *, owned: bool = True) -> None:
        self.config = config
        self.host = host
        self.life = life
        self.cursors = Cursors()
        self.wait = Waits(self)
        self.artifacts_folder: Path = host.artifacts / config.name
        #: What could be put right in a clone when it went on; None for a VM that booted.
        self.wakening: WakeAnswer | None = None
        #: The host's memory that it gives back at its end, where somebody counts.
        self.room: Room | None = None
        self._raw_marks: dict[str, int] = {}
        self._loop = lease_loop()
        self._owned = owned
        self.shared_use = SharedUse(config, host, lambda: host.scale(self.life.facts.accelerator))
        self._closed = False
        self._resting = False

    # -- the loop and the clock ----------------------------------------------------------------------------

    def on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and block for its value; what times out tells what holds the VM up."""
        try:
            return self._loop.run(work)
        except (WaitTimeout, CommandTimeout, ChannelError) as error:
            error.add_cause(standstill(self.life.vitals))
            raise

    def call_on_loop(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a plain function on the loop's thread and block for its value."""

        async def call() -> T:
            return function(*arguments)

        return self._loop.run(call())

    def deadline(self, timeout: float | None, default: float) -> Deadline:
        """The deadline of one public call, scaled as `--maqet-timeout-scale` wants it.

        Inside the function of a `wait.until`, never much later than that one's (`deadline.enclosed`).
        """
        seconds = default if timeout is None else timeout
        return enclosed(Deadline.after(seconds, self.host.scale(self.life.facts.accelerator)))

    def pause_watchfully(self, seconds: float) -> None:
        """Sleep for a poll; raises at once when the VM fails meanwhile."""
        with suppress(TimeoutError):
            self.on_loop(race(self.life.vitals, asyncio.sleep(seconds), Deadline.after(seconds + 1)))

    # -- marks and consoles --------------------------------------------------------------------------------

    def set_mark(self) -> None:
        """A test begins: waits start from here."""
        self.call_on_loop(self.life.vitals.mark)
        self.mark_consoles()

    def mark_consoles(self) -> None:
        """Console waits of all threads start from here."""
        self.cursors.mark(self.console_ends())
        self._raw_marks = self.call_on_loop(
            lambda: {name: log.raw_end for name, log in self.life.vitals.consoles.items()}
        )

    def console_ends(self) -> dict[str, int]:
        """How far each console has come."""

        def ends() -> dict[str, int]:
            self.life.vitals.read_consoles()
            return {name: log.end for name, log in self.life.vitals.consoles.items()}

        return self.call_on_loop(ends)

    def console_name(self, name: str | None) -> str:
        """The console of that name, or the first; NotSupported when there is none."""
        known = self.life.vitals.consoles
        if not known:
            raise NotSupported(f"{self.config.name} has no serial port", hint="`serial: [main]` gives it one")
        if name is None:
            return next(iter(known))
        if name not in known:
            raise NotSupported(f"{self.config.name} has no serial port {name!r}, it has: {', '.join(known)}")
        return name

    def console_position(self, name: str, since: str) -> int:
        """Where a wait with this `since` begins to search."""
        if since == "start":
            return 0
        if since == "now":
            return self.console_ends()[name]
        if since != "mark":
            raise ValueError(f'since must be "mark", "start" or "now", not {since!r}')
        return self.cursors.get(name)

    def raw_mark(self, name: str) -> int:
        """The mark in bytes of the log."""
        return self._raw_marks.get(name, 0)

    # -- ready ---------------------------------------------------------------------------------------------

    def wait_ready(self, timeout: float | None = None, starts: dict[str, int] | None = None) -> None:
        """Wait for the `ready:` list; console patterns are searched from `starts` (default: the cursors)."""
        ready.wait_ready(self, self.wait, timeout, starts)

    def ready_list(self) -> tuple[ReadyWait, ...]:
        """The configured list, or what a built-in guest says of itself."""
        if self.config.ready is not None:
            return self.config.ready
        pattern = self.life.facts.default_ready
        if pattern is None:
            return ()
        return (ReadyWait.model_validate({"console": pattern}),)

    def wait_all(self, conditions: list[Condition[Any]], deadline: Deadline) -> list[Any]:
        """Wait for all of these at once."""
        return self.on_loop(ready.hold_all(self.life.vitals, conditions, deadline))

    # -- failures ------------------------------------------------------------------------------------------

    def unseen_failure(self) -> MaqetError | None:
        """A panic or `fail_on` pattern of this test that no wait raised; this call counts as seeing it."""

        def find() -> MaqetError | None:
            if self.life.vitals.exit is None:
                self.life.vitals.read_consoles()
            failure = self.life.vitals.failures.unseen()
            if failure is None:
                return None
            failure.seen = True
            return failure.error()

        return self.call_on_loop(find)

    def health(self) -> str | None:
        """None for a VM the next test can use, else what is wrong with it in words."""
        if self._closed:
            return "closed"
        vitals = self.life.vitals
        if vitals.exit is not None:
            vitals.failures.tell_death()
            return vitals.end_wanted or f"QEMU died: {vitals.exit.reason}"
        if vitals.failures.panicked:
            return "the guest had panicked"
        if is_stopped(vitals):
            return standstill(vitals)  # it would not answer
        try:
            state = self.on_loop(self.life.run_state(self.deadline(None, self.config.timeouts.qmp)))
        except MaqetError as error:
            # A session breaks some milliseconds before it is known that QEMU has died.
            lost = isinstance(error, (ChannelError, QemuDied))
            if lost and self.on_loop(self.life.wait_exit(Deadline.after(1.0))):
                return self.health()
            return f"QEMU does not answer: {error.message.splitlines()[0]}"
        return None if state == "running" else f"it was left in the state {state!r}"

    # -- starting again, sharing, ending -------------------------------------------------------------------

    def boot_again(self, config: VmConfig) -> None:
        """A new QEMU on the current disks, in the same directory."""
        old = self.life
        # Waits after this are for the boot to come: the banner and the SHUTDOWN of the life before are not.
        self.call_on_loop(old.vitals.mailbox.mark)
        self.cursors.mark(self.console_ends())
        self.on_loop(old.disconnect())
        old.process.dismiss(power.QUIT_TIME)
        self.life = starting.start_again(old, config, self.host, self._loop)
        old.process.close()
        self.call_on_loop(self.life.vitals.failures.go_on_from, old.vitals.failures)
        self.config = config

    def relaunch(self, start: Callable[[LoopThread], Life]) -> None:
        """Another QEMU, which `start` brings up, behind the same handle."""
        self._end_life()
        self.life = start(self._loop)
        self.cursors.mark({})

    def rest(self) -> None:
        """Need no thread until `wake`: the VM's connections stay open, and nobody listens."""
        if not self._resting:
            self._resting = True
            rest_loop(self._loop)

    def wake(self) -> None:
        """End the rest. Idempotent."""
        if self._resting:
            self._resting = False
            wake_loop(self._loop)

    def close(self) -> None:
        """End the VM (or, for one that another process started, our use of it) and give everything back.

        Bounded in time, idempotent, raises nothing that a test could mend. A forked child only forgets it.
        """
        if self._closed:
            return
        self._closed = True
        if self.forked:
            return
        try:
            self._end_life()
        finally:
            self.shared_use.end()
            release_loop(self._loop)
            if self.room is not None:
                self.room.close()

    @property
    def forked(self) -> bool:
        """Whether this is a forked child of the process whose handle it is."""
        return self._loop.forked

    def _end_life(self) -> None:
        life = self.life
        try:
            if self._must_be_stopped():
                with suppress(MaqetError, TimeoutError):
                    self.on_loop(power.stop(life, self.deadline(None, self.config.timeouts.stop)))
        finally:  # whoever interrupts that wants it to end now
            self._kill_life(life)

    def crashed(self) -> None:
        """`crash` was found; what QEMU leaves behind is going to be removed."""

    def _must_be_stopped(self) -> bool:
        """Whether the guest is to be asked to shut down before its end."""
        wanted = self._owned and self.config.teardown == "stop" and self.life.vitals.exit is None
        return wanted and not self.host.in_haste()

    def _kill_life(self, life: Life) -> None:
        life.vitals.end_wanted = life.vitals.end_wanted or "the VM was torn down"
        self.on_loop(life.disconnect())
        if self._owned:
            self.crash = power.untold_crash(life, life.process.dismiss(power.QUIT_TIME))
            if self.crash is not None:
                self.crashed()
            remove_tree(life.directory.path)
        life.process.close()
        if life.template is not None:
            life.template.close()
