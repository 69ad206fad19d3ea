"""Who waits for whom: told to those who have to decide whether to wait for memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pytest_maqet.errors import MaqetError
from pytest_maqet.management.room_rules import Ties
from pytest_maqet.management.wishes import Live
from pytest_maqet.runs.promises import Books, Entry, Promise, now

#: How long one that waits may be held up by saying so, in seconds.
PATIENCE = 1.0


@contextmanager
def queueing(books: Books, owner: str, vm: str, door: Path) -> Iterator[None]:
    """Let others know, during the block, that this process waits until that VM is free for it.

    `door` is the VM's lock (`machine.turns`). Where it cannot be written, nobody knows.
    """
    turn: Promise | None = None
    line = Entry(vm, 0, 0, owner, books.process, "turn", now(), doors=(str(door),))
    with suppress(MaqetError, OSError), books.opened(PATIENCE):
        turn, _ = books.write(line)
    try:
        yield
    finally:
        if turn is not None:
            turn.close()


def ties_of(lives: Sequence[Live], user_locks: Sequence[str]) -> Ties:
    """What a process with these VMs, and these locks of its user's, has that others may be waiting for."""
    uses = [(live.vm.name, live.vm.shared_use) for live in lives]
    alone = (f"{name} to itself" for name, use in uses if use.alone)
    return Ties(", ".join([*user_locks, *alone]), tuple(use.door for _, use in uses if use.door is not None))
