"""Power: stop, power down, reboot, reset, pause, resume, kill."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError, DiskError, GuestPanic, MaqetError, QemuDied, WaitTimeout
from pytest_maqet.guest.commands import CommandRequest
from pytest_maqet.runs.exit_status import Exit
from pytest_maqet.waiting.engine import race, wait_for
from pytest_maqet.waiting.pushed import EventCame
from pytest_maqet.waiting.standstill import is_stopped

if TYPE_CHECKING:
    from pytest_maqet.machine.core import MachineCore
    from pytest_maqet.machine.life import Life

#: QEMU answers `quit` and is gone within this many seconds, or it is killed.
QUIT_TIME = 2.0

#: States in which somebody has paused the VM; in all others a guest that was reset goes on, although QEMU had
#: halted it (`-action panic=pause,shutdown=pause`).
_PAUSED = {"paused", "prelaunch", "suspended", "debug", "inmigrate"}


async def stop(life: Life, deadline: Deadline) -> None:
    """ACPI power button, then `quit`, then SIGKILL; returns when QEMU's process has ended."""
    life.vitals.end_wanted = "stopped by vm.stop()"
    if is_stopped(life.vitals):
        await end(life)
        return
    with suppress(MaqetError, TimeoutError):
        if await life.run_state(deadline) == "running":
            before = life.vitals.mailbox.count
            await life.execute("system_powerdown", None, deadline)
            # Not wait_for: the event stays in the mailbox, for the test to look at.
            await race(life.vitals, EventCame(life.vitals, "SHUTDOWN", {}, before).hold(), deadline)
    await end(life)


def refuse_crash(life: Life) -> None:
    """Raise QemuDied when QEMU crashed instead of stopping: what the guest wrote last may be lost."""
    if life.vitals.exit is not None and life.vitals.exit.crashed:
        life.vitals.failures.tell_death()
        life.vitals.end_wanted = None  # that was not the end it was asked for
        raise life.vitals.death()


def untold_crash(life: Life, ended: Exit | None) -> QemuDied | None:
    """QEMU's crash, over its teardown or before, that no call has told and nobody expected."""
    if ended is None or not ended.crashed or life.vitals.failures.death_was_told():
        return None
    life.vitals.exit = life.vitals.exit or ended
    life.vitals.end_wanted = None
    error = life.vitals.death()
    error.hint = "no call was under way that could tell it: it was found when the VM was torn down"
    return error


async def end(life: Life) -> None:
    """`quit`, then SIGKILL; returns when QEMU's process has ended. A stopped one is not asked."""
    if not is_stopped(life.vitals):
        await life.quit(Deadline.after(QUIT_TIME))
    if life.vitals.exit is None:
        life.process.kill()
        await life.wait_exit(Deadline.after(QUIT_TIME))


async def kill(life: Life) -> None:
    """SIGKILL: the power cut. Nothing is flushed."""
    life.vitals.end_wanted = "killed by vm.kill()"
    life.process.kill()
    await life.wait_exit(Deadline.after(QUIT_TIME))


async def powerdown(life: Life, deadline: Deadline) -> None:
    """Press the ACPI power button; what the guest makes of it is its own affair."""
    await life.execute("system_powerdown", None, deadline)


async def press_reset(life: Life, deadline: Deadline) -> None:
    """Have QEMU reset the machine, and wait until it has, which is after its answer."""
    before = life.vitals.mailbox.count
    await life.execute("system_reset", None, deadline)
    happened = EventCame(life.vitals, "RESET", {}, before).hold()
    try:
        await race(life.vitals, happened, deadline, (GuestPanic, DiskError))
    except TimeoutError:
        raise WaitTimeout(f"{life.config.name}: QEMU did not reset the machine within {deadline}") from None


async def reset(life: Life, deadline: Deadline) -> None:
    """Press the reset button; a guest that had panicked or powered off runs again."""
    paused = await life.run_state(deadline) in _PAUSED
    life.forget_channel()
    await press_reset(life, deadline)
    # Only now: a guest that panics right then is halted between our question and the reset, or after it.
    if not paused and await life.run_state(deadline) != "running":
        await life.execute("cont", None, deadline)


def reboot(vm: MachineCore, deadline: Deadline) -> None:
    """Ask the guest to reboot, by the command `reboot`; returns when it has reset itself."""
    life = vm.life
    before = vm.call_on_loop(lambda: life.vitals.mailbox.count)
    request = CommandRequest("sync; reboot || /sbin/reboot -f")
    # The connection may break, or the answer never come, when the guest obeys at once.
    with suppress(ChannelError, WaitTimeout):
        vm.on_loop(_ask_to_reboot(life, request, before, deadline))
    life.forget_channel()
    vm.on_loop(_await_reset(life, before, deadline))


async def _ask_to_reboot(life: Life, request: CommandRequest, before: int, deadline: Deadline) -> None:
    asking = asyncio.ensure_future(life.run(request, deadline))
    came = asyncio.ensure_future(EventCame(life.vitals, "RESET", {}, before).hold())
    try:
        await asyncio.wait({asking, came}, timeout=deadline.remaining, return_when=asyncio.FIRST_COMPLETED)
        if asking.done():
            asking.result()
    finally:
        asking.cancel()
        came.cancel()
        await asyncio.gather(asking, came, return_exceptions=True)


async def _await_reset(life: Life, before: int, deadline: Deadline) -> None:
    event = EventCame(life.vitals, "RESET", {}, before)
    await wait_for(life.vitals, event, deadline)
