"""Markers while tests are collected and set up: wrong ones are errors, several --maqet-vm parametrise."""

from __future__ import annotations

import pytest

from pytest_maqet import markers
from pytest_maqet.errors import MaqetError
from pytest_maqet.markers import MARKED_FIXTURES, Choice
from pytest_maqet.requirements import check_host
from pytest_maqet.session import SESSION, MaqetSession, scope_node
from pytest_maqet.vm_fixtures import PYTEST_SCOPE
from pytest_maqet.vm_selection import uses


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Check the test's markers, and parametrise `vm` where several --maqet-vm are given."""
    try:
        _check_markers(metafunc)
    except MaqetError as error:
        raise pytest.Collector.CollectError(str(error)) from None


def _check_markers(metafunc: pytest.Metafunc) -> None:
    session = metafunc.config.stash[SESSION]
    definition = metafunc.definition
    where = definition.nodeid
    markers.check_requirements(definition, where)
    if _has_own_marker(definition) and not markers.uses_a_marked_fixture(metafunc.fixturenames):
        raise markers.unused_marker(where)
    for fixture, scope in MARKED_FIXTURES.items():
        if fixture in metafunc.fixturenames:
            _check_and_parametrise(session, metafunc, fixture, scope)


def _has_own_marker(node: pytest.Item) -> bool:
    """Whether a test, not its class or module, has the `maqet` marker."""
    return any(mark.name == "maqet" for mark in node.own_markers)


def check_marker_was_read(session: MaqetSession, item: pytest.Item) -> None:
    """Raise ConfigError at the end of a test that could ask for its VM at run time only, and did not."""
    named = MARKED_FIXTURES.keys() & set(getattr(item, "fixturenames", ()))
    if _has_own_marker(item) and not named and not session.marker_was_read:
        raise markers.unused_marker(item.nodeid)


def _check_and_parametrise(
    session: MaqetSession, metafunc: pytest.Metafunc, fixture: str, scope: str
) -> None:
    definition = metafunc.definition
    node = scope_node(definition, scope)
    if node is definition.session:
        choice = Choice()
    else:
        choice = markers.marked(node, node.nodeid)
        _check(session, choice)
    names = session.settings.vm
    if choice.name is None and len(names) > 1 and not _is_parametrised(definition, fixture):
        metafunc.parametrize(fixture, names, ids=names, indirect=True, scope=PYTEST_SCOPE[scope])


def _check(session: MaqetSession, choice: Choice) -> None:
    """A marker's VM and overrides must be right; that is this test's collection error otherwise."""
    if choice.name is None and not choice.overrides:
        return
    complete = session.complete(choice)
    needed = session.config.fixture_names(complete.picked, complete.overrides, source=complete.source)
    if not needed:  # values that come from fixtures are not known yet
        config = session.configured(complete)
        if complete.overrides and complete.template is None:
            session.config.check_files_of(config, complete.source)


def _is_parametrised(definition: pytest.Item, fixture: str) -> bool:
    """Whether the test parametrises this fixture itself."""
    for mark in definition.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs.get("argnames", ())
        if isinstance(names, str):
            names = [name.strip() for name in names.split(",")]
        if fixture in names:
            return True
    return False


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before a test's fixtures: unused markers, requirements, and VMs that an earlier test left unusable."""
    session = item.config.stash[SESSION]
    names = getattr(item, "fixturenames", None)
    if names is None:
        return
    if _has_own_marker(item) and not markers.uses_a_marked_fixture(names):
        raise markers.unused_marker(item.nodeid)
    markers.check_requirements(item, item.nodeid)
    check_host(session, item)
    if session.started is not None:
        session.started.replace_spoiled(lambda live: uses(item, live))
