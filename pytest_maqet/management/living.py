"""The VMs of one process that are alive: a list that several threads add to and take from."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from pytest_maqet.management.wishes import Live, Wanted


class Living:
    """All VMs that were not ended, in the order of their starts."""

    def __init__(self) -> None:
        self._guard = threading.RLock()  # a signal may come while it is held, and ask for the list
        self._lives: list[Live] = []

    def all(self) -> tuple[Live, ...]:
        """Those that nobody has closed by now."""
        with self._guard:
            self._lives = [live for live in self._lives if not live.vm.ended]
            return tuple(self._lives)

    def add(self, live: Live) -> None:
        """One more."""
        with self._guard:
            self._lives.append(live)

    def remove(self, ending: Sequence[Live]) -> None:
        """They are about to be ended: nobody is given one of them any more."""
        dropped = set(map(id, ending))
        with self._guard:
            self._lives = [live for live in self._lives if id(live) not in dropped]

    def find(self, wanted: Wanted) -> Live | None:
        """The one that answers this wish."""
        if not wanted.shared:
            return None
        alike = (live for live in self.all() if live.shared and live.wanted.identity == wanted.identity)
        return next(alike, None)
