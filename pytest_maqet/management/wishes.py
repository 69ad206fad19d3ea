"""What is asked of the manager, and what it holds: scopes, wishes, living VMs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_maqet.config import Config, VmConfig
from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import NotSupported
from pytest_maqet.machine.core import MachineCore
from pytest_maqet.machine.freezing import Access, freeze
from pytest_maqet.machine.host import Host
from pytest_maqet.machine.plan import Plan, plan_for
from pytest_maqet.machine.template_key import template_key
from pytest_maqet.management.managed_machine import HandStarted, ManagedMachine
from pytest_maqet.management.usage import Usage
from pytest_maqet.runs.leases import Lease
from pytest_maqet.templates.manifest import Manifest
from pytest_maqet.templates.store import Draft
from pytest_maqet.templates.template import Frozen, Template


@dataclass(frozen=True)
class Scope:
    """The lifetime of a VM: `kind` as in the YAML's `scope:`, `owner` the test, module … it ends with."""

    kind: str
    owner: str


#: Scope, VM, digest of its configuration, key of the template it must be a clone of.
Identity = tuple[Scope, str, str, str]

#: The scope of VMs that a test started by hand: they end with the process's session.
BY_HAND = Scope("session", "started by hand")


@dataclass(frozen=True)
class Wanted:
    """One VM somebody asks for.

    `overrides` and `fixture_values` are what `config` was made with, for calls that change it further;
    `template` is what it must be a clone of, where that was said.
    """

    config: VmConfig
    scope: Scope
    shared: bool = True
    overrides: Mapping[str, Any] = field(default_factory=dict)
    fixture_values: Mapping[str, Any] = field(default_factory=dict)
    kind: type[ManagedMachine] = ManagedMachine
    template: Template | None = None

    @property
    def identity(self) -> Identity:
        """What makes two wishes one VM."""
        return (self.scope, self.config.name, self.config.key, self.template.key if self.template else "")


def started_by_hand(config: Config, name: str | Template, overrides: Mapping[str, Any]) -> Wanted:
    """What `maqet.start(name, **overrides)` asks for; raises ConfigError."""
    template = name if isinstance(name, Template) else None
    if template is not None:
        overrides = {**template.overrides, **overrides}
    said = {**overrides, "scope": "session"}
    found = config.vm(name if isinstance(name, str) else name.name, said, source="maqet.start(…)")
    return Wanted(found, BY_HAND, shared=False, overrides=overrides, kind=HandStarted, template=template)


def template_wanted(config: Config, name: str | Template, overrides: Mapping[str, Any]) -> Wanted:
    """What `maqet.template(name, …, **overrides)` is made of; raises ConfigError."""
    template = name if isinstance(name, Template) else None
    if template is not None:
        overrides = {**template.overrides, **overrides}
    found = config.vm(name if isinstance(name, str) else name.name, overrides, source="maqet.template(…)")
    return Wanted(found, BY_HAND, shared=False, overrides=overrides, template=template)


@dataclass(frozen=True)
class TemplateWish:
    """What is known of a VM's template before there is one.

    `base` is the key of the machine without what a function of the suite's prepares in it.
    """

    wanted: Wanted
    host: Host
    plan: Plan
    key: str
    base: str

    @property
    def config(self) -> VmConfig:
        """The VM's configuration."""
        return self.wanted.config

    @property
    def patience(self) -> Deadline:
        """How long freezing may take."""
        return Deadline.after(self.config.timeouts.ready, self.host.scale(self.plan.accelerator))

    def refuse_changed(self, config: VmConfig) -> None:
        """Raise NotSupported when the VM has become another machine (`vm.start(memory=…)`): no clone of it
        would come up.
        """
        if template_key(plan_for(config, self.host)) != template_key(plan_for(self.config, self.host)):
            raise NotSupported(
                f"{config.name} was started as another machine while it was prepared for a template",
                hint="say it in maqet.template(…, memory=…) or in the YAML",
            )

    def freeze(self, vm: MachineCore, draft: Draft, access: Access, seconds: float) -> Manifest:
        """Freeze a VM that lies in the draft; `seconds` is what a clone saves."""
        key, plan = self.key, self.plan
        return freeze(vm, draft, self.patience, key=key, plan=plan, access=access, boot_seconds=seconds)

    def template(self, frozen: Frozen, lease: Lease) -> Template:
        """What the suite gets when it has come true."""
        vm = self.config
        return Template(vm.name, self.key, vm, frozen, self.base, lease, self.wanted.overrides)


@dataclass
class Live:
    """A VM that is alive, and what is known of its use."""

    vm: ManagedMachine
    wanted: Wanted
    #: Names of the fixtures through which it is kept longer than for one test.
    fixtures: set[str] = field(default_factory=set)
    #: The tests that asked for it, the last one only.
    last_test: str = ""
    #: Why it must be replaced before it is used again.
    spoiled: str | None = None

    @property
    def config(self) -> VmConfig:
        """The VM's configuration, as it was asked for."""
        return self.wanted.config

    @property
    def scope(self) -> Scope:
        """The scope it ends with."""
        return self.wanted.scope

    @property
    def shared(self) -> bool:
        """May it be given to others of its scope that want the same? Not what a factory made."""
        return self.wanted.shared

    def begin_use(self, usage: Usage) -> None:
        """A test uses it from here on.

        One of scope `run` may be another worker's alone just now: waits for that to end, and then looks how
        the other has left it.
        """
        self.vm.shared_use.begin()
        usage.begin(self.config.name, self.vm.life.directory)
        if self.config.scope == "run":
            self.spoiled = self.spoiled or self.vm.health()

    def end_use(self, usage: Usage) -> None:
        """The test is over."""
        usage.end(self.vm.life.directory)
        self.vm.shared_use.end()
