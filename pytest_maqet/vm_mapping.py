"""What the `vms` fixture gives: every VM of the configuration by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING

import pytest

from pytest_maqet.errors import ConfigError
from pytest_maqet.session import session_of
from pytest_maqet.start_ahead import start_together
from pytest_maqet.vm_selection import vm_of_fixture

if TYPE_CHECKING:
    from pytest_maqet.machine import VirtualMachine


class VmMapping(Mapping[str, "VirtualMachine"]):
    """VMs by name. Looking one up starts it, through its fixture; iterating starts nothing."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request
        self._session = session_of(request)

    def __getitem__(self, name: str) -> VirtualMachine:
        __tracebackhide__ = True
        return vm_of_fixture(self._session, self._request, self._fixture(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._session.config.vms)

    def __len__(self) -> int:
        return len(self._session.config.vms)

    def __contains__(self, name: object) -> bool:
        return name in self._session.config.vms

    def start(self, *names: str) -> tuple[VirtualMachine, ...]:
        """Start several VMs at once and return them in the order of their names.

        Raises ConfigError for an unknown name, and what the first of them that fails raises.
        """
        __tracebackhide__ = True
        fixtures = tuple(self._fixture(name) for name in names)
        assert self._session.item is not None
        start_together(self._session, self._session.item, fixtures)
        return tuple(vm_of_fixture(self._session, self._request, fixture) for fixture in fixtures)

    def _fixture(self, name: str) -> str:
        known = self._session.config.vms
        if name not in known:
            near = get_close_matches(name, known, 1)
            raise ConfigError(
                f"vms[{name!r}]: there is no such VM; there are {', '.join(known)}",
                hint=f"did you mean {near[0]!r}?" if near else None,
            )
        return self._session.fixture_of(name)
