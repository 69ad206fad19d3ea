"""Runs a condition against its deadline and against everything that can go wrong meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError, MaqetError, QMPCommandError, WaitTimeout
from pytest_maqet.waiting.failures import Failure
from pytest_maqet.waiting.standstill import Beginning, beginning, standstill
from pytest_maqet.waiting.vitals import Vitals

#: A process that dies closes its sockets before anybody can see that it is dead. For so long, in seconds, an
#: error of a connection waits for that, and other errors.
LOST, SOON = 0.25, 0.02
#: How long it may take until it is known how a QEMU that is dead has ended, in seconds.
END_KNOWN = 1.5

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Condition(Protocol[T_co]):
    """Something that can come true about a VM; the built-in ones are in `pushed` and `probed`.

    `tolerates` are the failures that do not end this wait, since they may be what it waits for.
    """

    tolerates: tuple[type[MaqetError], ...]

    def describe(self) -> str:
        """What is awaited, to follow "waited for "."""
        ...

    def last_seen(self) -> str:
        """What was found at the last look, for the error; may be empty."""
        ...

    async def hold(self) -> T_co:
        """Return the wait's value as soon as the condition holds; run on the loop, may be cancelled."""
        ...

    def settle(self) -> None:
        """The wait has succeeded: move the cursor, take the event."""
        ...


async def race(
    vitals: Vitals,
    work: Coroutine[Any, Any, T],
    deadline: Deadline,
    tolerates: tuple[type[MaqetError], ...] = (),
    *,
    even_excused: bool = False,
    grace: float = 0.0,
) -> T:
    """The value of `work`, unless the deadline or a failure of the VM comes first (by `grace` seconds).

    Raises TimeoutError at the deadline; the failure's own error when the guest panics or QEMU dies. Where
    `work` is done in the same moment as the failure, it wins: what was awaited did happen.
    """
    task = asyncio.ensure_future(work)
    failing = asyncio.ensure_future(_next_failure(vitals, tolerates, even_excused=even_excused))
    try:
        await asyncio.wait({task, failing}, timeout=deadline.remaining, return_when=asyncio.FIRST_COMPLETED)
        if failing.done() and not task.done():
            for _ in range(3):  # let the work take one last look at what came before the failure
                await asyncio.sleep(0)
            if grace and not task.done():
                await asyncio.wait({task}, timeout=grace)
        if task.done() and task.exception() is not None and not failing.done():
            await _see_whether_it_died(vitals, task.exception(), failing)
        if task.done() and (task.exception() is None or not failing.done()):
            return task.result()
        if failing.done():
            failure = failing.result()
            failure.seen = True
            raise failure.error()
        raise TimeoutError
    finally:
        task.cancel()
        failing.cancel()
        await asyncio.gather(task, failing, return_exceptions=True)


async def wait_for(vitals: Vitals, condition: Condition[T], deadline: Deadline) -> T:
    """Wait until `condition` holds and return its value.

    Raises WaitTimeout with what was awaited, for how long, and what was seen last.
    """
    began = beginning(vitals)
    try:
        value = await race(vitals, condition.hold(), deadline, condition.tolerates)
    except TimeoutError:
        raise timed_out(vitals, condition.describe(), condition.last_seen(), deadline, began) from None
    condition.settle()
    return value


def timed_out(
    vitals: Vitals, what: str, seen: str, deadline: Deadline, began: Beginning | None = None
) -> WaitTimeout:
    """The error for a wait whose time is over; with `began` it says how busy QEMU was meanwhile."""
    lines = [f"{vitals.vm_name}: waited {deadline} for {what}"]
    if seen:
        lines.append(f"last seen: {seen}")
    if why := standstill(vitals, began):
        lines.append(why)
    lines.append(vitals.context())
    return WaitTimeout("\n".join(lines))


async def _see_whether_it_died(
    vitals: Vitals, broken: BaseException | None, failing: asyncio.Future[Failure]
) -> None:
    """Wait a little for the failure behind an error: what broke when QEMU died is told as that."""
    if isinstance(broken, QMPCommandError):
        return  # it answered
    await asyncio.wait({failing}, timeout=LOST if isinstance(broken, ChannelError) else SOON)
    if vitals.ending:
        await asyncio.wait({failing}, timeout=END_KNOWN)


async def _next_failure(
    vitals: Vitals, tolerates: tuple[type[MaqetError], ...], *, even_excused: bool
) -> Failure:
    while True:
        failure = vitals.failures.blocking(tolerates, even_excused=even_excused)
        if failure is not None:
            return failure
        await vitals.pulse.wait()
