"""What one pytest process knows of its run: settings, configuration, the current test, and the manager."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_maqet.errors import ConfigError
from pytest_maqet.markers import SCOPES, Choice
from pytest_maqet.options import DISCOVERED
from pytest_maqet.unread_files import folders_of_arguments, unread_files

if TYPE_CHECKING:
    from pytest_maqet.config import Config, VmConfig
    from pytest_maqet.management.manager import Manager
    from pytest_maqet.management.wishes import Scope
    from pytest_maqet.settings import Settings

#: The longest readable part of an artifacts folder's name.
LONGEST_FOLDER_NAME = 100

#: Where the session of a pytest run is kept: `config.stash[SESSION]`.
SESSION: pytest.StashKey[MaqetSession] = pytest.StashKey()


class MaqetSession:
    """One pytest process's side of a run.

    `worker` is "main" without xdist, "gw0"… in a worker, and "controller" in xdist's controller. `run_id` and
    `workers` come from the controller, when there is one.
    """

    def __init__(self, pytest_config: pytest.Config, settings: Settings) -> None:
        self.pytest_config = pytest_config
        self.settings = settings
        self.rootdir: Path = pytest_config.rootpath
        workerinput: Mapping[str, Any] = getattr(pytest_config, "workerinput", {})
        self.worker: str = workerinput.get("workerid", "main")
        self.workers: int = workerinput.get("workercount", 1)
        self.run_id: str | None = workerinput.get("maqet", {}).get("run_id")
        self.item: pytest.Item | None = None
        #: The tests to come, as far as they are known, and the place of the first among the session's.
        self.upcoming: list[pytest.Item] = []
        self.place = 0
        #: What the managers of this run's processes have written down, by process.
        self.ledgers: dict[str, Mapping[str, Any]] = {}
        #: A descriptor of the terminal (stderr) that pytest's capturing does not touch.
        self.terminal: int | None = None
        #: Fixture name → VM name, of the fixtures that come from the YAML.
        self.named: dict[str, str] = {}
        #: Whether somebody pressed Ctrl-C, or xdist interrupted this worker.
        self.interrupted = False
        #: Whether the current test got a VM through its marker.
        self.marker_was_read = False
        #: The test whose VMs were started ahead of their fixtures already.
        self.ahead_of: pytest.Item | None = None
        #: The named fixture that `vm` or `vms` is just asking for its VM.
        self.asking: str | None = None
        self._open_scopes: set[Scope] = set()
        self._config: Config | None = None
        self._manager: Manager | None = None

    @property
    def config(self) -> Config:
        """The configuration; raises ConfigError where the run has none."""
        if self._config is None:
            raise self.no_configuration()
        return self._config

    @config.setter
    def config(self, config: Config) -> None:
        self._config = config

    @property
    def is_configured(self) -> bool:
        """Whether the run has a configuration."""
        return self._config is not None

    def no_configuration(
        self, problem: str = "there is no maqet configuration", beside: Path | None = None
    ) -> ConfigError:
        """The error of a run that would need one: where it was looked for, and whether one lies elsewhere.

        `beside` is the directory of the test that asks.
        """
        folders = folders_of_arguments(self.pytest_config)
        unread = unread_files(self.pytest_config, self.settings, [*folders, *([beside] if beside else [])])
        return ConfigError(
            f"{problem}: no --maqet-config, no ini key maqet_config, and neither {' nor '.join(DISCOVERED)} "
            f"in {self.rootdir}" + (f"; {unread.names} not read" if unread else ""),
            hint=unread.cure
            if unread
            else "describe your VMs in a maqet.yaml beside your pytest configuration",
        )

    @property
    def manager(self) -> Manager:
        """The manager of this process's VMs, made when the first VM is asked for."""
        if self._manager is None:
            from pytest_maqet.management.manager import Manager
            from pytest_maqet.reporting.hook_caller import HookCaller

            self._manager = Manager(
                self.config,
                self.settings,
                worker=self.worker,
                workers=self.workers,
                run_id=self.run_id,
                listener=HookCaller(self.pytest_config, self.say),
            )
            self._tell_manager(self._manager)
        return self._manager

    @property
    def started(self) -> Manager | None:
        """The manager where there is one already."""
        return self._manager

    def end(self) -> None:
        """End all VMs of this process and keep the books; idempotent, another VM asked for begins anew."""
        manager, self._manager = self._manager, None
        if manager is None:
            return
        try:
            manager.close()
        finally:
            self.ledgers[f"{self.worker}/{len(self.ledgers)}"] = manager.ledger.export()

    def interrupt(self) -> None:
        """The run was interrupted: VMs end at once."""
        self.interrupted = True
        if self._manager is not None:
            self._manager.hurry()

    def say(self, line: str) -> None:
        """Show a line at once, past pytest's capturing: something takes long and a person may wonder."""
        if self.terminal is not None:
            with suppress(OSError):
                os.write(self.terminal, f"\nmaqet: {line}".encode())

    # -- which VM ------------------------------------------------------------------------------------------

    def complete(self, choice: Choice) -> Choice:
        """A choice with its VM's name: the one said, else that of `--maqet-vm`, else the YAML's default.

        Raises ConfigError when nothing says which VM is meant.
        """
        if choice.name is not None:
            return choice
        name = self.settings.vm[0] if self.settings.vm else self.config.default
        if name is None and len(self.config.vms) == 1:
            name = next(iter(self.config.vms))
        if name is None:
            raise ConfigError(
                f"{choice.source}: which VM is `vm`? There are {', '.join(self.config.vms)}, and no default",
                hint="add `default: NAME` to the YAML, or @pytest.mark.maqet('NAME') to the test, "
                "or run with --maqet-vm NAME",
            )
        return replace(choice, name=name)

    def configured(self, choice: Choice, fixture_values: Mapping[str, Any] | None = None) -> VmConfig:
        """The VM's configuration with the overrides of a complete choice.

        Raises ConfigError for an unknown VM or a wrong override.
        """
        template = choice.template
        if template is not None and not choice.overrides:
            return template.config.scoped(choice.scope or template.config.scope)
        overrides = {**(template.overrides if template is not None else {}), **choice.overrides}
        if choice.scope is not None and choice.scope != self.config.vm(choice.picked).scope:
            overrides["scope"] = choice.scope
        return self.config.vm(
            choice.picked, overrides, fixture_values=fixture_values or {}, source=choice.source
        )

    def scope_of(self, choice: Choice, at_least: str) -> str:
        """The scope a complete choice's VM lives in, when the fixture that gives it has scope `at_least`."""
        own = choice.scope or self.config.vm(choice.picked, source=choice.source).scope
        return max(own, at_least, key=SCOPES.index)

    def fixture_of(self, vm_name: str) -> str:
        """The name of the fixture that a VM of the YAML has."""
        return next(fixture for fixture, vm in self.named.items() if vm == vm_name)

    def open_scope(self, scope: Scope) -> bool:
        """Note that a scope has VMs; whether it is new, so that its end must be seen to."""
        new = scope not in self._open_scopes
        self._open_scopes.add(scope)
        return new

    def close_scope(self, scope: Scope) -> None:
        """Note that a scope is over."""
        self._open_scopes.discard(scope)

    # -- the current test ----------------------------------------------------------------------------------

    def begin(self, item: pytest.Item) -> None:
        """A test, or another attempt at it, begins: marks are set in all VMs that live already."""
        self.item, self.ahead_of, self.marker_was_read = item, None, False
        manager = self._manager
        if manager is None:
            return
        self._tell_manager(manager)
        for live in manager.lives:
            live.vm.artifacts_folder = manager.artifacts / live.config.name
            live.vm.set_mark()

    def _tell_manager(self, manager: Manager) -> None:
        if self.item is None:
            return
        manager.begin(self.item.nodeid, self.artifacts_of(self.item), again=attempt(self.item) > 1)

    def artifacts_of(self, item: pytest.Item) -> Path:
        """The folder for what is kept of this test; each attempt has its own."""
        number = attempt(item)
        return self.settings.artifacts / (
            folder_name(item.nodeid) + (f"-attempt-{number}" if number > 1 else "")
        )


def attempt(item: pytest.Item) -> int:
    """Which attempt at the test this is, from 1; plugins that rerun failed tests count in this attribute."""
    return int(getattr(item, "execution_count", 1))


def folder_name(nodeid: str) -> str:
    """A test's id as the name of a folder; ids that differ give names that differ."""
    plain = re.sub(r"[^A-Za-z0-9._=-]+", "-", nodeid.replace("::", "--")).strip("-.")
    if plain == nodeid and len(plain) <= LONGEST_FOLDER_NAME:
        return plain
    digest = hashlib.sha256(nodeid.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{plain[-LONGEST_FOLDER_NAME:].strip('-.')}-{digest}"


def session_of(request: pytest.FixtureRequest) -> MaqetSession:
    """The session a fixture belongs to."""
    return request.config.stash[SESSION]


def scope_node(item: pytest.Item, scope: str) -> pytest.Item | pytest.Collector:
    """The node whose end is the end of `scope` for this test.

    A test outside a class is its own class, and one outside a package belongs to the session, as with
    pytest's own scopes.
    """
    if scope == "function":
        return item
    if scope == "class":
        return item.getparent(pytest.Class) or item
    if scope == "module":
        return item.getparent(pytest.Module) or item.session
    if scope == "package":
        return item.getparent(pytest.Package) or item.session
    return item.session
