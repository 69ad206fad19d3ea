"""From a test's markers and parameters to the VM it asks for, and to the end of that VM's scope."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pytest_maqet.markers import Choice, changed, marked
from pytest_maqet.session import MaqetSession, scope_node

if TYPE_CHECKING:
    from pytest_maqet.machine import VirtualMachine
    from pytest_maqet.management.wishes import Live, Wanted


def choice_for(session: MaqetSession, item: pytest.Item, scope: str, parameter: Any = None) -> Choice:
    """The complete choice for the marked fixture of that scope, in this test.

    Raises ConfigError for a marker used wrongly, and where nothing says which VM is meant.
    """
    node = scope_node(item, scope)
    where = node.nodeid or "the session"
    choice = marked(node, where) if node is not item.session else Choice(source=where)
    if parameter is not None:
        choice = changed(choice, parameter)
    return session.complete(choice)


def wanted_vm(
    session: MaqetSession,
    item: pytest.Item,
    choice: Choice,
    at_least: str,
    values: Mapping[str, Any],
    *,
    shared: bool = True,
) -> Wanted:
    """The wish that a complete choice comes to, for one test."""
    from pytest_maqet.management.wishes import Scope, Wanted

    kind = session.scope_of(choice, at_least) if shared else at_least
    scoped = replace(choice, scope=kind)
    config = session.configured(scoped, values)
    owner = scope_node(item, kind).nodeid if kind != "run" else ""
    return Wanted(config, Scope(kind, owner), shared, choice.overrides, values, template=choice.template)


def end_with_scope(session: MaqetSession, item: pytest.Item, wanted: Wanted) -> None:
    """See to it that the VMs of this scope end with it.

    The first VM of a scope registers their common end: what was set up after it is torn down before it, and
    all of them end at once.
    """
    ending = partial(session.manager.end_scope, wanted.scope)
    if session.open_scope(wanted.scope):

        def finish() -> None:
            session.close_scope(wanted.scope)
            ending()

        scope_node(item, wanted.scope.kind).addfinalizer(finish)


def vm_of_fixture(session: MaqetSession, request: pytest.FixtureRequest, fixture: str) -> VirtualMachine:
    """The VM that a named fixture gives, for a test that asks for it by `vm` or `vms`.

    Each such test asks anew, so one that does not ask uses no VM, although the fixture may live on.
    """
    __tracebackhide__ = True
    before, session.asking = session.asking, fixture
    try:
        vm: VirtualMachine = request.getfixturevalue(fixture)
    finally:
        session.asking = before
    for live in session.manager.lives:
        if live.vm is vm:  # it is not where somebody's own fixture overrides ours
            session.manager.use(live)
    return vm


def fixture_names_in(namespace: Any) -> set[str]:
    """Names of the fixtures that a module or a class defines.

    pytest has no public way to ask; what is not found here only costs: a clash is not seen, or a VM is
    started that an override makes unnecessary.
    """
    members = getattr(namespace, "__dict__", {})
    return {
        str(getattr(member, "name", attribute))
        for attribute, member in list(members.items())
        if type(member).__name__ == "FixtureFunctionDefinition"
    }


def uses(item: pytest.Item, live: Live) -> bool:
    """Whether a test uses a VM, as far as its fixtures and its set-up tell."""
    names = getattr(item, "fixturenames", ())
    return live.last_test == item.nodeid or "*" in live.fixtures or not live.fixtures.isdisjoint(names)
