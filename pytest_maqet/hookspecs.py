"""Hooks for other plugins and for `conftest.py`.

Hooks about a VM are called one at a time, but possibly from another thread than the test's: several VMs of
one test start at once. They must not raise; what they raise fails that start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_maqet import VirtualMachine


def pytest_maqet_config(config: pytest.Config, tree: dict[str, Any]) -> None:
    """Change the configuration in place, as a tree of dicts and lists.

    Called once in every process of a run (xdist's controller and each worker), after the files are merged and
    before `--maqet-set`; it must do the same in all of them.
    """


def pytest_maqet_vm_started(vm: VirtualMachine) -> None:
    """QEMU runs and answers; the guest is only beginning to boot."""


def pytest_maqet_vm_ready(vm: VirtualMachine) -> None:
    """Every wait of the VM's `ready:` list holds; the VM goes to its test next."""


def pytest_maqet_vm_failed(vm: VirtualMachine | None, error: BaseException) -> None:
    """A VM did not become ready: `error` says why; the VM is ended after this.

    `vm` is None where not even QEMU could be started.
    """


def pytest_maqet_vm_stopping(vm: VirtualMachine) -> None:
    """A VM is about to be ended because its scope is over; it may be dead already."""
