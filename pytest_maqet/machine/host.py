"""What a VM needs from the run it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pytest_maqet.config import VmConfig
from pytest_maqet.errors import NotSupported
from pytest_maqet.runs.run_directory import RunDirectory
from pytest_maqet.runs.vm_directory import VmDirectory
from pytest_maqet.templates.template import Template

#: Everything takes about this many times as long under QEMU's own CPU emulation.
TCG_TIMEOUT_SCALE = 8.0


def _say_nothing(_line: str) -> None:
    """Progress nobody asked for."""


def _nobody() -> str:
    """An owner nobody named."""
    return ""


def _never_in_haste() -> bool:
    """Nothing interrupts it."""
    return False


def _cannot_freeze(vm: Any) -> Any:
    """Used where nobody keeps templates."""
    raise NotSupported(f"{vm.name} was started by hand: there is no run that keeps a template of it")


def _never_ready(vm: Any) -> None:
    """As above."""
    raise NotSupported(f"{vm.name} was started by hand: there is no template of its ready state")


def _nobody_asks(_vm: str, _door: Path) -> AbstractContextManager[None]:
    """Used where nobody wants to know who waits."""
    return nullcontext()


def _no_overrides(config: VmConfig, overrides: Mapping[str, Any]) -> VmConfig:
    """Used where nothing can resolve overrides; an empty set changes nothing."""
    if overrides:
        raise ValueError(f"no configuration to apply {sorted(overrides)} to")
    return config


class Room(Protocol):
    """The host's memory for one VM."""

    def reserve(self) -> None:
        """Have it promised, waited for where that helps; raises StartError. Never called with a lock held."""

    def hold(self, config: VmConfig, directory: VmDirectory) -> AbstractContextManager[tuple[int, ...]]:
        """Descriptors for the QEMU that the block starts there: the memory is its own while it has them.

        Raises StartError where there is none, and never waits.
        """
        ...

    def close(self) -> None:
        """Give it back. Idempotent; a QEMU that has it keeps it."""


class Unlimited:
    """Used where nobody counts."""

    def reserve(self) -> None:
        """There is always some."""

    def hold(self, config: VmConfig, directory: VmDirectory) -> AbstractContextManager[tuple[int, ...]]:  # noqa: ARG002
        """As above."""
        return nullcontext(())

    def close(self) -> None:
        """Nothing was taken."""


@dataclass(frozen=True)
class Host:
    """The run's side of a VM: directories, lease, accelerator, and how patient to be.

    `lease` is the file whose shared lock keeps the VM alive. `timeout_scale` None means 1, or 8 under TCG.
    `monitors` is the number of QMP monitors each VM gets: one per process that uses it, and one for a person.
    `owner` says who we are now, for locks ("gw0, test_a.py::test_b"), `in_haste` whether VMs must
    end at once, without being asked to shut down. `freeze` makes a template of a VM, `restore_ready` puts a
    ready one in its place. `room` is the memory for its QEMUs, one at a time. `queueing` is around each wait
    for a VM (by name, and the lock that stands for it) that other workers use.
    """

    run: RunDirectory
    lease: Path
    artifacts: Path
    accel: str = "auto"
    timeout_scale: float | None = None
    monitors: int = 2
    report: Callable[[str], None] = _say_nothing
    owner: Callable[[], str] = _nobody
    in_haste: Callable[[], bool] = _never_in_haste
    reconfigure: Callable[[VmConfig, Mapping[str, Any]], VmConfig] = _no_overrides
    freeze: Callable[[Any], Template] = _cannot_freeze
    restore_ready: Callable[[Any], None] = _never_ready
    room: Room = field(default_factory=Unlimited)
    queueing: Callable[[str, Path], AbstractContextManager[None]] = _nobody_asks

    def scale(self, accelerator: str) -> float:
        """What every timeout of a VM under this accelerator is multiplied by."""
        if self.timeout_scale is not None:
            return self.timeout_scale
        return TCG_TIMEOUT_SCALE if accelerator == "tcg" else 1.0
