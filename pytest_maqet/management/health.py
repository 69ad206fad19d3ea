"""Which VMs a test left unusable, and which have to be replaced before the next one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_maqet.management.records import Spoiled
from pytest_maqet.management.wishes import Live


def left_unusable(
    lives: Sequence[Live], used: Callable[[Live], bool], test: str, worker: str
) -> list[Spoiled]:
    """Note of each VM that a test `used` whether it still serves; returns those that do not."""
    found = []
    for live in lives:
        live.vm.unshare()
        if live.spoiled or not used(live):
            continue
        live.spoiled = live.vm.health()
        if live.spoiled:
            found.append(Spoiled(live.config.name, live.spoiled, test, worker))
    return found


def to_replace(lives: Sequence[Live], needed: Callable[[Live], bool]) -> list[Live]:
    """The unusable VMs among those that are `needed`."""
    for live in lives:
        if live.config.scope == "run" and needed(live):  # others use it too, and may have broken it
            live.vm.share()
            live.spoiled = live.spoiled or live.vm.health()
    return [live for live in lives if live.spoiled and needed(live)]
