"""The run's side of each VM, as `machine.Host` wants it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pytest_maqet.config import Config, VmConfig
from pytest_maqet.machine import VirtualMachine
from pytest_maqet.machine.host import Host
from pytest_maqet.management.run_side import RunSide
from pytest_maqet.management.wishes import Wanted
from pytest_maqet.settings import Settings
from pytest_maqet.templates.template import Template


class Hosts:
    """Makes the host's side of what is wanted.

    `monitors` is how many a VM of scope `run` gets. `artifacts` is where the current test's go, and `freeze`
    makes a template of a running VM, `restore_ready` puts one back to its ready state, `queueing` is around
    each wait for a VM that other workers use.
    """

    freeze: Callable[[VirtualMachine, Wanted], Template]
    restore_ready: Callable[[VirtualMachine, Wanted], None]
    queueing: Callable[[str, Path], AbstractContextManager[None]]

    def __init__(
        self,
        config: Config,
        settings: Settings,
        run: RunSide,
        *,
        monitors: int,
        report: Callable[[str], None],
        owner: Callable[[], str],
    ) -> None:
        self.artifacts: Path = settings.artifacts
        self._config = config
        self._settings = settings
        self._run = run
        self._monitors = monitors
        self._report = report
        self._owner = owner

    def of(self, wanted: Wanted) -> Host:
        """The run's side of one VM."""
        config = wanted.config

        def reconfigure(_config: VmConfig, overrides: Mapping[str, Any]) -> VmConfig:
            return self._config.vm(
                config.name,
                {**wanted.overrides, **overrides, "scope": config.scope},
                fixture_values=wanted.fixture_values,
                source=f"{config.name}.start(…)",
            )

        return Host(
            run=self._run.directory,
            lease=self._run.lease_for(config.scope),
            artifacts=self.artifacts,
            accel=self._settings.accel,
            timeout_scale=self._settings.timeout_scale,
            monitors=self._monitors if config.scope == "run" else 2,
            report=self._report,
            owner=self._owner,
            in_haste=lambda: self._run.in_haste,
            reconfigure=reconfigure,
            freeze=lambda vm: self.freeze(vm, wanted),
            restore_ready=lambda vm: self.restore_ready(vm, wanted),
            queueing=self.queueing,
        )
