"""What is asked of the manager, and what it holds: scopes, wishes, living VMs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_maqet.config import VmConfig
from pytest_maqet.management.launch import ManagedMachine
from pytest_maqet.management.usage import Usage


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

    @property
    def identity(self) -> tuple[Scope, str, str]:
        """What it has in common with the wishes that it answers."""
        return (self.scope, self.config.name, self.config.key)

    def begin_use(self, usage: Usage) -> None:
        """A test uses it from here on.

        One of scope `run` may be another worker's alone just now: waits for that to end, and then looks how
        the other has left it.
        """
        self.vm.share()
        usage.begin(self.config.name, self.vm.life.directory)
        if self.config.scope == "run":
            self.spoiled = self.spoiled or self.vm.health()

    def end_use(self, usage: Usage) -> None:
        """The test is over."""
        usage.end(self.vm.life.directory)
        self.vm.unshare()


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
