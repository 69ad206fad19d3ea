"""The `ready:` list: when a VM counts as up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_maqet.config import ReadyWait
from pytest_maqet.deadline import Deadline
from pytest_maqet.waiting.engine import Condition, race, timed_out, wait_for
from pytest_maqet.waiting.standstill import beginning
from pytest_maqet.waiting.vitals import Vitals

if TYPE_CHECKING:
    from pytest_maqet.machine.core import MachineCore
    from pytest_maqet.machine.waits import Waits


async def hold_all(vitals: Vitals, conditions: list[Condition[Any]], deadline: Deadline) -> list[Any]:
    """Wait until every condition has held once; returns their values in order.

    All start from the same cursor; they are settled at the end only, so that the cursor moves to the
    furthest end. Raises WaitTimeout for the first that did not hold.
    """
    began = beginning(vitals)
    pending = [asyncio.ensure_future(condition.hold()) for condition in conditions]
    try:
        values = await race(vitals, _gather(pending), deadline)
    except TimeoutError:
        open_ones = [c for c, work in zip(conditions, pending, strict=True) if not _held(work)]
        what = " and ".join(condition.describe() for condition in open_ones)
        seen = "; ".join(filter(None, (condition.last_seen() for condition in open_ones)))
        raise timed_out(vitals, what, seen, deadline, began) from None
    finally:
        for work in pending:
            work.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    for condition in conditions:
        condition.settle()
    return values


async def _gather(pending: Sequence[asyncio.Future[Any]]) -> list[Any]:
    return list(await asyncio.gather(*(asyncio.shield(work) for work in pending)))


def _held(work: asyncio.Future[Any]) -> bool:
    return work.done() and not work.cancelled() and work.exception() is None


def wait_ready(
    vm: MachineCore, waits: Waits, timeout: float | None, starts: Mapping[str, int] | None
) -> None:
    """Wait for the VM's ready list; each entry has its own time-out, else the list's.

    Console patterns are searched from `starts`: a banner of the boot before is not this boot's.
    """
    whole = vm.deadline(timeout, vm.config.timeouts.ready)
    if starts is not None:
        vm.cursors.mark(dict(starts))
    work = []
    calls = []
    for entry in vm.ready_list():
        own = entry.timeout if entry.timeout is not None else timeout
        deadline = whole if own is None else vm.deadline(own, vm.config.timeouts.ready)
        if entry.kind == "call":
            calls.append((entry, deadline))
        else:
            work.append((waits.make(entry.kind, entry.arguments, deadline), deadline))
    vm.on_loop(_all_of(vm.life.vitals, work))
    for entry, deadline in calls:
        _call(vm, waits, entry, deadline)


async def _all_of(vitals: Vitals, work: list[tuple[Condition[Any], Deadline]]) -> None:
    tasks = [asyncio.ensure_future(wait_for(vitals, condition, deadline)) for condition, deadline in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _call(vm: MachineCore, waits: Waits, entry: ReadyWait, deadline: Deadline) -> None:
    """`call: "module:function"`: called with the VM until what it returns is true (or None)."""
    module, _, name = str(entry.arguments["function"]).partition(":")
    function = getattr(import_module(module), name)

    def look() -> bool:
        return function(vm) is not False

    waits.until(look, message=f"{module}:{name}(vm)", timeout=deadline.seconds / deadline.scale)
