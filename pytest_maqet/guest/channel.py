"""A way into a guest, whichever it is, and the choice among several."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError
from pytest_maqet.guest.commands import CommandOutcome, CommandRequest

#: Seconds that a channel is waited for before the next one in the order is tried as well.
PATIENCE = 2.0


class Channel(Protocol):
    """Runs commands in one guest; loop-thread only.

    Every call may be cancelled at any point and leaves the channel usable. Several commands may be under
    way at once.
    """

    @property
    def name(self) -> str:
        """`agent`, `console`, …: as in the configuration's `guest: connect:`."""
        ...

    async def probe(self, deadline: Deadline) -> None:
        """Return as soon as the guest answers.

        Raises ChannelError at the deadline, or at once where it is certain that commands cannot work.
        """
        ...

    async def run(self, request: CommandRequest, deadline: Deadline) -> CommandOutcome:
        """Run a command to its end.

        Raises CommandTimeout at the deadline (up to `commands.END_GRACE` seconds later), with the command
        ended in the guest; ChannelError when the guest does not answer or the channel broke.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection; the next call makes a new one. Idempotent."""
        ...


async def pick(channels: Sequence[Channel], deadline: Deadline) -> Channel:
    """The first of `channels`, in their order, that answers.

    A later one is tried only when those before it have failed or kept silent for `PATIENCE` seconds, since
    trying may disturb: the console is typed on.

    Raises ChannelError with what each one answered.
    """
    if not channels:
        raise ChannelError(
            "there is no way to run commands in this guest",
            hint="give the VM `guest: {connect: [agent]}` or `[console]`",
        )
    probes: dict[asyncio.Task[None], Channel] = {}
    failed: dict[str, str] = {}
    waiting = list(channels)
    try:
        while waiting or probes:
            if waiting:
                channel = waiting.pop(0)
                probes[asyncio.ensure_future(channel.probe(deadline))] = channel
            patience = min(PATIENCE, deadline.remaining / 2) if waiting else None
            done, _ = await asyncio.wait(probes, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            answered = [probe for probe in probes if probe in done and probe.exception() is None]
            if answered:
                return probes[answered[0]]
            for probe in done:
                failed[probes.pop(probe).name] = _reason(probe)
    finally:
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
    lines = [f"{name}: {failed[name]}" for name in (channel.name for channel in channels)]
    raise ChannelError(
        f"no channel into the guest answered within {deadline}\n" + "\n".join(lines),
        hint="the console log shows how far the guest has come; `guest: connect:` lists what is tried",
    )


def _reason(probe: asyncio.Task[None]) -> str:
    """Why a probe failed; an error that is no ChannelError is a fault of ours and goes on up."""
    error = probe.exception()
    if isinstance(error, ChannelError):
        return str(error)
    assert error is not None
    raise error
