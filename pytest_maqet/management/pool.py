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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_maqet.errors import MaqetError
from pytest_maqet.management.wishes import Identity, Scope, Wanted

if TYPE_CHECKING:
    from pytest_maqet.management.launch import ManagedMachine

#: Memory that must be left over when a spare has been made, in bytes.
MARGIN = 512 << 20
#: How long the end of a run waits for a spare that is just being made, in seconds.
PATIENCE = 10.0

MakeSpare = Callable[[Wanted], "ManagedMachine | None"]


@dataclass
class _Spare:
    """One that is being made or is there already."""

    wanted: Wanted
    made: ManagedMachine | None = None
    thread: threading.Thread | None = None
    unwanted: bool = field(default=False)


class Pool:
    """The spares of one process, used from one thread.

    `make` brings one up, or returns None where there is nothing to clone. At most `most` are kept at a time:
    one for each processor that this process may count as its own.
    """

    def __init__(self, make: MakeSpare, workers: int) -> None:
        self._make = make
        self._spares: list[_Spare] = []
        cpus = len(os.sched_getaffinity(0))
        # With one processor, making a spare would take from the running test what it gives to the next.
        self.most = max(1, cpus // workers) if cpus > 1 else 0

    def want(self, wishes: Iterable[Wanted]) -> None:
        """Make these ready, which the next test is going to ask for, and let go of all others."""
        ahead = {_kind(wanted): wanted for wanted in wishes}
        for spare in list(self._spares):
            if _kind(spare.wanted) in ahead:
                del ahead[_kind(spare.wanted)]
            else:
                self._drop(spare)
        for wanted in ahead.values():
            if len(self._spares) < self.most and _room_for(wanted):
                self._spares.append(self._begun(wanted))

    def take(self, wanted: Wanted) -> ManagedMachine | None:
        """The spare of that kind, waited for where it is being made; None when there is none."""
        spare = next((spare for spare in self._spares if _kind(spare.wanted) == _kind(wanted)), None)
        if spare is None:
            return None
        self._spares.remove(spare)
        try:
            if spare.thread is not None:
                spare.thread.join()
        except BaseException:  # an interrupt: whoever makes it ends it, too
            self._drop(spare)
            raise
        return spare.made

    def close(self) -> None:
        """End every spare. Idempotent."""
        spares, self._spares = self._spares, []
        for spare in spares:
            self._drop(spare)
        for spare in spares:
            if spare.thread is not None:
                spare.thread.join(PATIENCE)

    def _begun(self, wanted: Wanted) -> _Spare:
        spare = _Spare(wanted)
        spare.thread = threading.Thread(target=self._work, args=(spare,), name="maqet-spare", daemon=True)
        spare.thread.start()
        return spare

    def _work(self, spare: _Spare) -> None:
        # Whatever fails here fails again, and is told, when the test asks for the VM.
        with suppress(Exception):
            made = self._make(spare.wanted)
            if spare.unwanted and made is not None:
                made.discard()
            else:
                spare.made = made

    def _drop(self, spare: _Spare) -> None:
        with suppress(ValueError):
            self._spares.remove(spare)
        spare.unwanted = True
        if spare.thread is not None and spare.thread.is_alive():
            return  # it ends what it has made itself
        if spare.made is not None:
            with suppress(MaqetError, OSError):
                spare.made.discard()


def _kind(wanted: Wanted) -> Identity:
    """What two wishes have in common that the same spare can answer: all but the test."""
    _scope, name, config, template = wanted.identity
    return (Scope(wanted.scope.kind, ""), name, config, template)


def _room_for(wanted: Wanted) -> bool:
    """Whether the host has memory for one more guest that fills its own."""
    try:
        text = Path("/proc/meminfo").read_text()
        available = next(line for line in text.splitlines() if line.startswith("MemAvailable:"))
        return int(available.split()[1]) << 10 > wanted.config.memory + MARGIN
    except (OSError, StopIteration, ValueError, IndexError):
        return False
