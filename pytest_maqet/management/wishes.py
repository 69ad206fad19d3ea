"""What is asked of the manager, and what it holds: scopes, wishes, living VMs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_maqet.config import VmConfig
from pytest_maqet.management.launch import ManagedMachine


@dataclass(frozen=True)
class Scope:
    """The lifetime of a VM: `kind` as in the YAML's `scope:`, `owner` the test, module … it ends with."""

    kind: str
    owner: str


#: The scope of VMs that a test started by hand: they end with the process's session.
BY_HAND = Scope("session", "started by hand")


@dataclass
class Live:
    """A VM that is alive, and what is known of its use."""

    vm: ManagedMachine
    config: VmConfig
    scope: Scope
    #: May it be given to others of its scope that want the same? Not what a factory made.
    shared: bool
    #: Names of the fixtures through which it is kept longer than for one test.
    fixtures: set[str] = field(default_factory=set)
    #: The tests that asked for it, the last one only.
    last_test: str = ""
    #: Why it must be replaced before it is used again.
    spoiled: str | None = None


@dataclass(frozen=True)
class Wanted:
    """One VM somebody asks for.

    `overrides` and `fixture_values` are what `config` was made with, for calls that change it further.
    """

    config: VmConfig
    scope: Scope
    shared: bool = True
    overrides: Mapping[str, Any] = field(default_factory=dict)
    fixture_values: Mapping[str, Any] = field(default_factory=dict)
    kind: type[ManagedMachine] = ManagedMachine

    @property
    def identity(self) -> tuple[Scope, str, str]:
        """What makes two wishes one VM."""
        return (self.scope, self.config.name, self.config.key)
