"""How the blocking handles of a guest (consoles, processes) get their work onto the loop."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from pytest_maqet.deadline import Deadline

T = TypeVar("T")


class Caller(Protocol):
    """The part of a VM's handle that blocks for its users."""

    def call(self, work: Coroutine[Any, Any, T], deadline: Deadline, *, grace: float = 0.0) -> T:
        """Run on the loop and block for the value; ends at once when the guest panics or QEMU dies.

        The work keeps to its deadline by itself. It has `grace` seconds more after a failure that it may have
        caused itself.
        """
        ...

    def command_deadline(self, timeout: float | None) -> Deadline:
        """The deadline of one call, in seconds before scaling; None means `timeouts: command`."""
        ...
