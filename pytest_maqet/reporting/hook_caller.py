"""What happens to VMs, told to pytest's plugins by hooks and to people by lines on the terminal."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pytest_maqet.masking import masked
from pytest_maqet.visible_text import visible

if TYPE_CHECKING:
    from pytest_maqet.machine import VirtualMachine

_log = logging.getLogger("maqet")


class HookCaller:
    """The manager's listener; `say` shows a line to a person at once."""

    def __init__(self, config: pytest.Config, say: Callable[[str], None]) -> None:
        self._hook = config.hook
        self._say = say

    def started(self, vm: VirtualMachine) -> None:
        """QEMU runs."""
        _log.info("%s: QEMU runs (pid %s, %s)", vm.name, vm.pid, vm.accel)
        self._hook.pytest_maqet_vm_started(vm=vm)

    def ready(self, vm: VirtualMachine) -> None:
        """The VM is ready."""
        _log.info("%s: ready", vm.name)
        self._hook.pytest_maqet_vm_ready(vm=vm)

    def failed(self, vm: VirtualMachine | None, error: BaseException) -> None:
        """The VM did not become ready."""
        self._hook.pytest_maqet_vm_failed(vm=vm, error=error)

    def stopping(self, vm: VirtualMachine) -> None:
        """The VM is about to be ended."""
        self._hook.pytest_maqet_vm_stopping(vm=vm)

    def progress(self, line: str) -> None:
        """Something takes a while."""
        _log.info("%s", masked(line))
        self._say(visible(masked(line)))
