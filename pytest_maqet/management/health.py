"""Which VMs a test left unusable, and which have to be replaced before the next one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_maqet.management.records import Spoiled
from pytest_maqet.management.usage import Usage
from pytest_maqet.management.wishes import Live


def left_unusable(lives: Sequence[Live], used: Callable[[Live], bool], usage: Usage) -> list[Spoiled]:
    """Note of each VM that a test `used` whether it still serves; returns those that do not."""
    found = []
    for live in lives:
        if not live.spoiled and used(live):
            live.spoiled = live.vm.health()
            # Else another worker has replaced it meanwhile, and named us.
            if live.spoiled and live.vm.life.directory.record_file.exists():
                found.append(usage.confess(live.config.name, live.vm.life.directory, live.spoiled))
        live.end_use(usage)
    return found


def to_replace(lives: Sequence[Live], needed: Callable[[Live], bool], usage: Usage, test: str) -> list[Live]:
    """The unusable VMs among those that are `needed` by the test, which uses them from here on."""
    for live in lives:
        if needed(live):
            live.begin_use(usage)
            live.last_test = test
    return [live for live in lives if live.spoiled and needed(live)]


def one_tests(live: Live) -> bool:
    """Whether the VM was one test's alone."""
    return live.scope.kind == "function"
