"""All VMs of a test start at once: which ones a test is going to ask for, before its fixtures do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_maqet.errors import MaqetError
from pytest_maqet.markers import MARKED_FIXTURES, Choice
from pytest_maqet.session import MaqetSession
from pytest_maqet.vm_selection import choice_for, end_with_scope, fixture_names_in, uses, wanted_vm

if TYPE_CHECKING:
    from pytest_maqet.management.wishes import Wanted


#: No pool makes more spares than this.
MOST_AHEAD = 16


def start_closure(session: MaqetSession, item: pytest.Item) -> None:
    """Start every VM in the closure of a test's fixtures, once per set-up.

    What cannot be known or started now (an overridden fixture, values that come from fixtures, a wrong
    marker) is left to the fixture that asks for it.
    """
    if session.ahead_of is item:
        return
    session.ahead_of = item
    start_together(session, item, tuple(getattr(item, "fixturenames", ())))


def start_together(session: MaqetSession, item: pytest.Item, fixtures: tuple[str, ...]) -> None:
    """Start the VMs of several fixtures at once; their errors wait for the fixtures."""
    several = _all_wanted(session, item, fixtures)
    if len({wanted.identity for wanted in several}) < 2:
        return
    for wanted in several:
        end_with_scope(session, item, wanted)
    session.manager.acquire_ahead(several)


def upcoming(session: MaqetSession, item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.Item]:
    """The tests that come after this one, as far as they are known: under xdist that is one at most."""
    if nextitem is None or session.worker != "main":
        return [nextitem] if nextitem is not None else []
    items = item.session.items
    if items[session.place : session.place + 1] != [item]:  # else no search: they run in their order
        if item not in items:
            return [nextitem]
        session.place = items.index(item)
    session.place += 1
    return items[session.place : session.place + MOST_AHEAD]


def prepare_next(session: MaqetSession, upcoming: Sequence[pytest.Item]) -> None:
    """Let spares be made for the tests to come, the next one first, while one runs."""
    manager = session.started
    if manager is None or session.item is None or not any(uses(session.item, live) for live in manager.lives):
        return  # a test without a VM runs in a process without threads of ours
    wishes: list[Wanted] = []
    for item in upcoming[: manager.spares]:
        fixtures: tuple[str, ...] = tuple(getattr(item, "fixturenames", ()))
        wishes += _all_wanted(session, item, fixtures)
    manager.want_next(wishes)


def _all_wanted(session: MaqetSession, item: pytest.Item, fixtures: tuple[str, ...]) -> list[Wanted]:
    overridden = _overridden(item)
    found = [_wanted(session, item, fixture, overridden) for fixture in fixtures if fixture not in overridden]
    return [wanted for wanted in found if wanted is not None]


def _wanted(session: MaqetSession, item: pytest.Item, fixture: str, overridden: set[str]) -> Wanted | None:
    """The wish behind a fixture of ours; None where it cannot be told ahead."""
    scope = MARKED_FIXTURES.get(fixture, "function")
    try:
        if fixture in session.named:
            choice = Choice(session.named[fixture], source=f"fixture {fixture}")
        elif fixture in MARKED_FIXTURES:
            callspec = getattr(item, "callspec", None)
            choice = choice_for(session, item, scope, callspec.params.get(fixture) if callspec else None)
        else:
            return None
        if choice.plain and session.fixture_of(choice.picked) in overridden:
            return None
        if session.config.fixture_names(choice.picked, choice.overrides):
            return None
        return wanted_vm(session, item, choice, scope, {})
    except MaqetError:
        return None


def _overridden(item: pytest.Item) -> set[str]:
    """Names of all fixtures that the test's module, class and the conftest files define."""
    names: set[str] = set()
    for node in item.listchain():
        if isinstance(node, (pytest.Module, pytest.Class)):
            names |= fixture_names_in(node.obj)
    for plugin in item.config.pluginmanager.get_plugins():
        file = getattr(plugin, "__file__", None)
        if file and Path(file).name == "conftest.py":
            names |= fixture_names_in(plugin)
    return names
