"""Who waits for a VM that other workers use: told to those who have to decide whether to wait for memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pytest_maqet.errors import MaqetError
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
