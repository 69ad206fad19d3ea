"""The search for a way into a guest that is about to be frozen, and what is told of it when it takes long."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import MaqetError

if TYPE_CHECKING:
    from pytest_maqet.machine.core import MachineCore

#: After this many seconds a person is told.
TELL_AFTER = 3.0


def search_channel(vm: MachineCore, deadline: Deadline) -> None:
    """Have `Life.picked_channel` set where a channel answers by the deadline; a guest without one is left so.

    A guest that has none makes its first start long: what it is waited for, and how not to, is reported.
    """
    life = vm.life
    if life.picked_channel is not None or not life.has_channels():
        return

    async def search() -> None:
        tell = asyncio.get_running_loop().call_later(TELL_AFTER, vm.host.report, line)
        try:
            await life.channel(deadline)
        finally:
            tell.cancel()

    line = (
        f"{vm.config.name}: before it is frozen, a way into the guest is looked for, through which its "
        f"clones are reseeded: {deadline} at most, once (`guest: {{connect: []}}` says that there is none)"
    )
    with suppress(MaqetError):
        vm.on_loop(search())
