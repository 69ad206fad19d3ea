"""What a guest needs after it was put back in time.

Its clock is as old as its state, and its random numbers come again as they came before. This is the one
place where that is mended.
"""

from __future__ import annotations

from pytest_maqet.deadline import Deadline
from pytest_maqet.machine.life import Life


async def awaken(life: Life, deadline: Deadline) -> None:
    """Set the clock and reseed the random numbers of a guest that has just begun to run again.

    Called on the loop after each `cont` that follows a restore, before `vm.restore` returns; not for a VM
    that was paused at its checkpoint. Does nothing yet: the guest keeps its old clock.
    """
