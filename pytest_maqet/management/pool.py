"""Spares: clones made ready while a test runs, for the test that comes next.

A spare has been woken, reseeded and warmed up, and stands still: it costs memory and no processor time, and
the test that takes it pays for letting it go on. The thread that makes one lives as long as that takes;
afterwards nothing of ours runs, and the spare's connections rest with the loop.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_maqet.errors import MaqetError
from pytest_maqet.management.wishes import Identity, Scope, Wanted

if TYPE_CHECKING:
    from pytest_maqet.management.managed_machine import ManagedMachine

#: How long the end of a run waits for a spare that is just being made, in seconds.
PATIENCE = 10.0

MakeSpare = Callable[[Wanted, Callable[["ManagedMachine"], None]], "ManagedMachine | None"]


class _Spare:
    """One that is being made or is there already; its flags are looked at and set under the lock only."""

    def __init__(self, wanted: Wanted, make: MakeSpare) -> None:
        self.wanted = wanted
        self._guard = threading.Lock()
        self._unwanted = False
        self._begun: ManagedMachine | None = None
        self._made: ManagedMachine | None = None
        self._thread = threading.Thread(target=self._work, args=(make,), name="maqet-spare", daemon=True)
        self._thread.start()

    def take(self) -> ManagedMachine | None:
        """The VM, waited for while it is being made; None when that failed."""
        try:
            self._thread.join()
        except BaseException:  # an interrupt: whoever makes it ends it, too
            self.drop()
            raise
        return self._made

    def drop(self) -> None:
        """Nobody wants it: one that is there ends now, one that is being made ends its maker's work."""
        with self._guard:
            self._unwanted = True
            begun, made, self._made = self._begun, self._made, None
        if made is not None:
            with suppress(MaqetError, OSError):
                made.discard()
        elif begun is not None:
            with suppress(MaqetError, OSError, ValueError):
                begun.life.process.kill()

    def join(self, timeout: float) -> None:
        """Wait for the end of what is under way."""
        self._thread.join(timeout)

    def _work(self, make: MakeSpare) -> None:
        made = None
        # Whatever fails here fails again, and is told, when the test asks for the VM.
        with suppress(Exception):
            made = make(self.wanted, self._note)
        with self._guard:
            if not self._unwanted:
                self._made = made
                return
        if made is not None:
            with suppress(Exception):
                made.discard()

    def _note(self, vm: ManagedMachine) -> None:
        """QEMU runs."""
        with self._guard:
            self._begun = vm
            unwanted = self._unwanted
        if unwanted:
            vm.life.process.kill()


class Pool:
    """The spares of one process.

    `make` brings one up, telling of the VM as soon as its QEMU runs, or returns None where nothing can be
    cloned; `room_for` tells whether there is memory for one. At most `most` are kept at a time: one for each
    processor that this process may count as its own.
    """

    def __init__(self, make: MakeSpare, room_for: Callable[[Wanted], bool], workers: int) -> None:
        self._make = make
        self._room_for = room_for
        self._spares: list[_Spare] = []
        self._guard = threading.Lock()
        cpus = len(os.sched_getaffinity(0))
        # With one processor, making a spare would take from the running test what it gives to the next.
        self.most = max(1, cpus // workers) if cpus > 1 else 0

    def want(self, wishes: Iterable[Wanted]) -> None:
        """Make these ready, in this order, for the tests that come next; let go of all others."""
        missing = list(wishes)
        unwanted = []
        with self._guard:
            for spare in list(self._spares):
                asked = next((one for one in missing if _kind(one) == _kind(spare.wanted)), None)
                if asked is not None:
                    missing.remove(asked)
                else:
                    self._spares.remove(spare)
                    unwanted.append(spare)
        for spare in unwanted:
            spare.drop()
        for wanted in missing:
            if self._room_for(wanted):
                # Where the system gives no thread there is no spare.
                with self._guard, suppress(RuntimeError):
                    if len(self._spares) < self.most:
                        self._spares.append(_Spare(wanted, self._make))

    def has(self, wanted: Wanted) -> bool:
        """Whether there is a spare of that kind, or is going to be."""
        with self._guard:
            return any(_kind(spare.wanted) == _kind(wanted) for spare in self._spares)

    def take(self, wanted: Wanted) -> ManagedMachine | None:
        """The spare of that kind, waited for where it is being made; None when there is none."""
        with self._guard:
            spare = next((spare for spare in self._spares if _kind(spare.wanted) == _kind(wanted)), None)
            if spare is None:
                return None
            self._spares.remove(spare)
        return spare.take()

    def close(self) -> None:
        """End every spare. Idempotent."""
        with self._guard:
            spares, self._spares = self._spares, []
        for spare in spares:
            spare.drop()
        for spare in spares:
            spare.join(PATIENCE)


def _kind(wanted: Wanted) -> Identity:
    """What two wishes have in common that the same spare can answer: all but the test."""
    _scope, name, config, template = wanted.identity
    return (Scope(wanted.scope.kind, ""), name, config, template)
