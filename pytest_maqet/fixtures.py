"""The fixtures that do not come from the YAML: `vm` and its siblings, `vms`, factories, `maqet`.

Thin on purpose: `vm_fixtures` has what they do. Every run loads this, so it imports only pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import pytest

from pytest_maqet.session import MaqetSession, session_of

if TYPE_CHECKING:
    from pytest_maqet.machine import VirtualMachine
    from pytest_maqet.management.manager import Manager


def _configured_session(request: pytest.FixtureRequest) -> MaqetSession:
    """The session, or this test's failure where the run has no configuration."""
    __tracebackhide__ = True
    session = session_of(request)
    if not session.is_configured:
        path = getattr(request, "path", None)  # a session's fixture has none
        pytest.fail(str(session.no_configuration(beside=path and path.parent)), pytrace=False)
    return session


def _marked(request: pytest.FixtureRequest) -> Iterator[VirtualMachine]:
    __tracebackhide__ = True
    _configured_session(request)
    from pytest_maqet.vm_fixtures import give_marked_vm

    yield from give_marked_vm(request)


def _factory(request: pytest.FixtureRequest, scope: str) -> Callable[..., VirtualMachine]:
    __tracebackhide__ = True
    _configured_session(request)
    from pytest_maqet.vm_fixtures import give_factory

    return give_factory(request, scope)


@pytest.fixture
def vm(request: pytest.FixtureRequest) -> Iterator[VirtualMachine]:
    """The VM of the test's `maqet` marker, of --maqet-vm, or the YAML's default; started and ready.

    Takes indirect parameters: a VM's name, or a dict of overrides.
    """
    __tracebackhide__ = True
    yield from _marked(request)


@pytest.fixture(scope="class")
def class_vm(request: pytest.FixtureRequest) -> Iterator[VirtualMachine]:
    """As `vm`, for a whole class; reads the class's marker."""
    __tracebackhide__ = True
    yield from _marked(request)


@pytest.fixture(scope="module")
def module_vm(request: pytest.FixtureRequest) -> Iterator[VirtualMachine]:
    """As `vm`, for a whole module; reads the module's marker."""
    __tracebackhide__ = True
    yield from _marked(request)


@pytest.fixture(scope="module")
def package_vm(request: pytest.FixtureRequest) -> Iterator[VirtualMachine]:
    """As `vm`, for a whole package; reads `pytestmark` in the package's `__init__.py`."""
    __tracebackhide__ = True
    yield from _marked(request)


@pytest.fixture(scope="session")
def session_vm(request: pytest.FixtureRequest) -> Iterator[VirtualMachine]:
    """As `vm`, for the session of one xdist worker: --maqet-vm, or the YAML's default."""
    __tracebackhide__ = True
    yield from _marked(request)


@pytest.fixture
def vms(request: pytest.FixtureRequest) -> Mapping[str, VirtualMachine]:
    """All VMs by name, each started when it is looked up; `vms.start("a", "b")` starts several at once."""
    __tracebackhide__ = True
    _configured_session(request)
    from pytest_maqet.vm_mapping import VmMapping

    return VmMapping(request)


@pytest.fixture
def vm_factory(request: pytest.FixtureRequest) -> Callable[..., VirtualMachine]:
    """`vm_factory("web", memory="1G")` starts one more VM, which ends with the test."""
    __tracebackhide__ = True
    return _factory(request, "function")


@pytest.fixture(scope="class")
def class_vm_factory(request: pytest.FixtureRequest) -> Callable[..., VirtualMachine]:
    """As `vm_factory`; the VMs end with the class."""
    __tracebackhide__ = True
    return _factory(request, "class")


@pytest.fixture(scope="module")
def module_vm_factory(request: pytest.FixtureRequest) -> Callable[..., VirtualMachine]:
    """As `vm_factory`; the VMs end with the module."""
    __tracebackhide__ = True
    return _factory(request, "module")


@pytest.fixture(scope="session")
def session_vm_factory(request: pytest.FixtureRequest) -> Callable[..., VirtualMachine]:
    """As `vm_factory`; the VMs end with the session."""
    __tracebackhide__ = True
    return _factory(request, "session")


@pytest.fixture(scope="session")
def maqet(request: pytest.FixtureRequest) -> Manager:
    """The manager of this process's VMs: `.config .run_dir .start(name, …) .stop(vm) .stats()`."""
    __tracebackhide__ = True
    return _configured_session(request).manager


@pytest.fixture(scope="session")
def vm_start_lock(request: pytest.FixtureRequest) -> Callable[..., AbstractContextManager[Any]]:
    """Named locks across all workers of the run.

    Used as `with vm_start_lock("name", timeout=60):`.

    For the suite's own use: the plugin's starts take other locks. Raises LockTimeout naming the holder.
    """
    __tracebackhide__ = True
    session = _configured_session(request)

    def lock(name: str, *, timeout: float = 60.0) -> AbstractContextManager[Any]:
        return session.manager.user_lock(name, timeout)

    return lock
