"""Waking a guest that was frozen: it goes on with an old clock and with random numbers that others have too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_maqet.deadline import Deadline

if TYPE_CHECKING:
    from pytest_maqet.machine.life import Life


async def awaken(life: Life, deadline: Deadline) -> None:
    """Let the guest go on, set its clock and reseed its random numbers."""
    await life.execute("cont", None, deadline)
