"""Waking a guest that was frozen: it goes on with an old clock, and with random numbers that others have too.

Both are put right in one exchange with maqet-wake, where that runs in the guest; else by a command over the
guest's channel. A guest that can be reached in neither way keeps the frozen ones, and somebody is told.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError, CommandTimeout
from pytest_maqet.guest.commands import CommandRequest
from pytest_maqet.guest.wake_port import WakeAnswer, new_seed
from pytest_maqet.guest.wake_script import wake_answer, wake_command

if TYPE_CHECKING:
    from pytest_maqet.machine.life import Life

#: The ways in which a template's clones are woken: by the port, by a command, not at all because no command
#: reaches the guest, and not at all because there is nothing in it that would have to be.
PORT, COMMAND, NOTHING, NEEDLESS = "port", "command", "nothing", "needless"
_ASLEEP = WakeAnswer("no command reaches this guest", "no command reaches this guest")


async def way_to_wake(life: Life) -> str:
    """How this guest, or a copy of it, can be woken."""
    if not life.facts.connect and life.facts.default_ready is not None:
        return NEEDLESS  # an embedded guest without channels keeps no time and draws no numbers
    if await life.agent_port.wake_listens():
        return PORT
    return COMMAND if life.picked_channel is not None else NOTHING


async def settle(life: Life, way: str, deadline: Deadline) -> None:
    """Have what listens in the guest wait for the next message: it is not to be frozen while it polls."""
    if await life.run_state(deadline) != "running":
        return
    if way == PORT:
        await life.wake_port.wake(deadline, seed=None)
    await life.settle(deadline)


async def awaken(life: Life, way: str, deadline: Deadline) -> WakeAnswer:
    """Let a guest go on, set its clock, and reseed its random numbers.

    The answer says what could not be done, and why. Raises what `Life.execute` raises, and the guest's own
    failure when it panics.
    """
    return await _on_and_woken(life, way, deadline, reseed=True)


async def go_on(life: Life, way: str, deadline: Deadline) -> WakeAnswer:
    """Let a guest go on that was awake already and has stood still for a while: its clock is put right."""
    return await _on_and_woken(life, way, deadline, reseed=False)


async def _on_and_woken(life: Life, way: str, deadline: Deadline, *, reseed: bool) -> WakeAnswer:
    if way != PORT:
        await life.execute("cont", None, deadline)
        return await _woken(life, way, deadline, reseed=reseed)
    await life.wake_port.connect(deadline)
    # Both at once: the guest finds the message when it wakes, while QEMU still has to answer `cont`.
    waking = asyncio.ensure_future(_woken(life, way, deadline, reseed=reseed))
    try:
        await life.execute("cont", None, deadline)
        return await waking
    finally:
        waking.cancel()
        await asyncio.gather(waking, return_exceptions=True)


async def _woken(life: Life, way: str, deadline: Deadline, *, reseed: bool) -> WakeAnswer:
    if way == NEEDLESS:
        return WakeAnswer(None, None)
    if way == NOTHING:
        return _ASLEEP if reseed else WakeAnswer(_ASLEEP.clock, None)
    seed = new_seed() if reseed else None
    now = _own_time(life)
    try:
        if way == PORT:
            return await life.guarded(life.wake_port.wake(deadline, seed=seed, now=now), deadline)
        command, words = wake_command(now=time.time() if now is None else now, seed=seed)
        done = await life.run(CommandRequest(command, input=words), deadline)
        return wake_answer(str(done.stdout))
    except (ChannelError, CommandTimeout) as error:
        return WakeAnswer(error.message, error.message if reseed else None)


def _own_time(life: Life) -> float | None:
    """The time of a guest whose clock begins at a date (`rtc: {base: …}`), as a boot would have it now.

    None for all others, whose time is the host's. Seconds since 1970.
    """
    base = life.config.rtc.base if life.config.rtc is not None else None
    if base is None or base in ("utc", "localtime"):
        return None
    booted = life.frozen.manifest.boot_seconds if life.frozen is not None else 0.0
    try:
        return datetime.fromisoformat(base).replace(tzinfo=UTC).timestamp() + booted
    except ValueError:
        return None
