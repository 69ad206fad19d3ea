"""QEMUs that crashed when nobody was waiting for them: found at their end, and told."""

from __future__ import annotations

import threading
from collections.abc import Container
from contextlib import suppress
from typing import NamedTuple

from pytest_maqet.errors import MaqetError, QemuDied
from pytest_maqet.management.managed_machine import ManagedMachine
from pytest_maqet.management.records import Ledger


class Crash(NamedTuple):
    """One of them: whose QEMU it was, the error, titles and texts for a report, where its logs are kept."""

    vm: ManagedMachine
    error: QemuDied
    sections: list[tuple[str, str]]
    logs: str | None


class Crashes:
    """Those of one process; found in any thread."""

    def __init__(self) -> None:
        self._found: list[Crash] = []
        self._guard = threading.Lock()

    def found(self, vm: ManagedMachine) -> None:
        """Keep what there is to see of a VM whose QEMU has crashed; its files are there for the last time."""
        assert vm.crash is not None
        sections: list[tuple[str, str]] = []
        folder = vm.artifacts_folder.parent
        logs = None
        with suppress(MaqetError, OSError):
            sections = vm.report_sections()
        with suppress(MaqetError, OSError):
            vm.save_artifacts(folder)
            logs = str(folder)
        with self._guard:
            self._found.append(Crash(vm, vm.crash, sections, logs))

    def take(self, told: Container[int], ledger: Ledger) -> list[Crash]:
        """Those of VMs whose `id` is in `told`, for their test to fail by; all others are for the summary."""
        with self._guard:
            found, self._found = self._found, []
        for crash in found:
            if crash.logs is not None:
                ledger.artifacts.append(crash.logs)
            if id(crash.vm) not in told:
                ledger.note(
                    f"{crash.error.message.splitlines()[0]}; found when {crash.vm.name} was torn down"
                )
        return [crash for crash in found if id(crash.vm) in told]
