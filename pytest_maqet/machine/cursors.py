"""How far each reader of a console has read: one cursor per console and thread, starting at the mark."""

from __future__ import annotations

import threading


class Cursors:
    """Positions in the consoles of one VM.

    A wait reads on from its thread's cursor and moves it past its match; the mark is where every cursor
    begins anew: at the beginning of each test's set-up, or when the VM became ready, if that is later.
    """

    def __init__(self) -> None:
        self._marks: dict[str, int] = {}
        self._cursors: dict[tuple[str, int], int] = {}

    def mark(self, ends: dict[str, int]) -> None:
        """Set the mark to these positions, and every cursor back to it."""
        self._marks = dict(ends)
        self._cursors.clear()

    def get(self, console: str) -> int:
        """Where this thread reads on."""
        mark = self._marks.get(console, 0)
        return max(mark, self._cursors.get((console, threading.get_ident()), mark))

    def move(self, console: str, thread: int, position: int) -> None:
        """A wait of `thread` matched up to `position`; a cursor never goes back."""
        key = (console, thread)
        self._cursors[key] = max(position, self._cursors.get(key, 0))
