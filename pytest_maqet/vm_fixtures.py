"""The fixtures that give VMs: one for each VM of the YAML, and what `vm` and its siblings do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from pytest_maqet.markers import MARKED_FIXTURES, SCOPES, Choice, name_or_template
from pytest_maqet.requirements import check_vm
from pytest_maqet.session import MaqetSession, session_of
from pytest_maqet.start_ahead import start_closure
from pytest_maqet.vm_selection import choice_for, end_with_scope, vm_of_fixture, wanted_vm

if TYPE_CHECKING:
    from pytest_maqet.config import VmConfig
    from pytest_maqet.machine import VirtualMachine
    from pytest_maqet.management.wishes import Wanted
    from pytest_maqet.templates.template import Template

#: pytest's scope for a fixture that gives a VM of our scope. `package` does not work for a plugin's fixture
#: (one VM would serve all packages), so it is a module's fixture whose VM is kept with the package.
PYTEST_SCOPE: dict[str, Any] = {
    "function": "function",
    "class": "class",
    "module": "module",
    "package": "module",
    "session": "session",
    "run": "session",
}


def build_named_fixtures(session: MaqetSession) -> ModuleType:
    """A module with one fixture for each VM of the configuration, for pytest to read as a plugin."""
    module = ModuleType("pytest_maqet_named_fixtures")
    module.__doc__ = "The VMs of the configuration, as fixtures."
    for number, config in enumerate(session.config.vms.values()):
        session.named[config.fixture] = config.name
        # The attribute's name must not be the user's: pytest takes `pytest_…` for a hook.
        setattr(module, f"maqet_fixture_{number}", _named_fixture(config))
    return module


def _named_fixture(config: VmConfig) -> Any:
    """The fixture of one VM."""
    name, scope = config.name, config.scope

    def give_vm(request: pytest.FixtureRequest) -> VirtualMachine:
        __tracebackhide__ = True
        session = session_of(request)
        return provide(request, session, Choice(name, source=f"fixture {request.fixturename}"), "function")

    give_vm.__name__ = config.fixture
    give_vm.__doc__ = f"The {config.described_as}, {scope} scope: started and ready."
    return pytest.fixture(scope=PYTEST_SCOPE[scope], name=config.fixture)(give_vm)


def provide(
    request: pytest.FixtureRequest, session: MaqetSession, choice: Choice, at_least: str
) -> VirtualMachine:
    """The VM of a complete choice, for the fixture that `request` belongs to.

    It ends with its scope, or with `at_least`, the fixture's own, where that is wider.
    """
    __tracebackhide__ = True
    assert session.item is not None, "fixtures are set up for a test"
    start_closure(session, session.item)
    needed = session.config.fixture_names(choice.picked, choice.overrides, source=choice.source)
    values = {name: request.getfixturevalue(name) for name in needed}
    return hand_over(session, request.fixturename, wanted_vm(session, session.item, choice, at_least, values))


def hand_over(session: MaqetSession, fixture: str | None, wanted: Wanted) -> VirtualMachine:
    """Acquire a VM, end it with its scope, and remember through which fixture it is kept."""
    __tracebackhide__ = True
    assert session.item is not None
    manager = session.manager
    end_with_scope(session, session.item, wanted)
    live = manager.acquire(wanted)
    if fixture is not None and wanted.scope.kind != "function":
        in_closure = fixture in getattr(session.item, "fixturenames", ())
        # Who asks at run time may be a fixture that others have too: then nobody can tell who uses the VM.
        live.fixtures.add(fixture if in_closure or fixture == session.asking else "*")
    return live.vm


def give_marked_vm(request: pytest.FixtureRequest) -> Iterator[VirtualMachine]:
    """What `vm`, `class_vm` … do: the VM of the marker, of `--maqet-vm`, or the default."""
    __tracebackhide__ = True
    session = session_of(request)
    fixture = request.fixturename
    assert session.item is not None
    assert fixture is not None
    session.marker_was_read = True
    scope = MARKED_FIXTURES[fixture]
    choice = choice_for(session, session.item, scope, getattr(request, "param", None))
    vm_scope = session.scope_of(choice, "function")
    with ExitStack() as stack:
        if choice.plain and SCOPES.index(vm_scope) >= SCOPES.index(scope):
            vm = vm_of_fixture(session, request, session.fixture_of(choice.picked))
        else:
            vm = provide(request, session, choice, scope)
        if choice.exclusive:
            stack.enter_context(vm.exclusive())
        check_vm(session, session.item, vm)
        yield vm


def give_factory(request: pytest.FixtureRequest, scope: str) -> Callable[..., VirtualMachine]:
    """What the `vm_factory` fixtures give: one more VM at each call."""
    session = session_of(request)
    fixture = request.fixturename

    def factory(name: str | Template | None = None, /, **overrides: Any) -> VirtualMachine:
        __tracebackhide__ = True
        assert session.item is not None, "a VM factory is called in a test or in a fixture"
        source = f"{fixture}(…) in {session.item.nodeid}"
        picked, template = name_or_template(name, f"{fixture}(…)") if name is not None else (None, None)
        choice = session.complete(Choice(picked, overrides, None, source=source, template=template))
        needed = session.config.fixture_names(choice.picked, choice.overrides, source=choice.source)
        values = {one: request.getfixturevalue(one) for one in needed}
        return hand_over(
            session, fixture, wanted_vm(session, session.item, choice, scope, values, shared=False)
        )

    return factory
