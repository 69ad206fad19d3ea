"""A VM's handle as the manager has it: it hears of the VM's end, and of a QEMU that crashed over that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from pytest_maqet.machine import VirtualMachine
from pytest_maqet.machine.waking import go_on


class ManagedMachine(VirtualMachine):
    """A VM whose end its manager hears of, whoever closes it."""

    #: Whether it was closed.
    ended: bool = False
    #: Called once, before the VM ends; None where nobody wants to know.
    stopping: Callable[[VirtualMachine], None] | None = None
    #: Called where QEMU is found to have crashed, while its logs are still there.
    on_crash: Callable[[ManagedMachine], None] | None = None

    def close(self) -> None:
        """End the VM; idempotent."""
        try:
            if not self.ended and self.stopping is not None and not self.forked:
                self.stopping(self)
        finally:
            self.ended = True
            super().close()

    def crashed(self) -> None:
        """Let the manager have what there is to see."""
        if self.on_crash is not None:
            self.on_crash(self)

    def stand_still(self) -> None:
        """Stop the guest, which is ready, until a test takes it; the connections rest."""
        deadline = self.deadline(None, self.config.timeouts.qmp)
        self.on_loop(self.life.execute("stop", None, deadline))
        self.rest()

    def take_up(self, artifacts: Path) -> None:
        """Let a guest that stood still go on, with its clock put right; for a test that keeps things there.

        Raises what `Life.execute` raises, and QemuDied where it is dead.
        """
        self.wake()
        self.artifacts_folder = artifacts / self.config.name
        assert self.life.frozen is not None
        way = self.life.frozen.manifest.wake
        self.on_loop(go_on(self.life, way, self.deadline(None, self.config.timeouts.command)))

    def discard(self) -> None:
        """End a VM that no test has had: nobody is told."""
        self.stopping = None
        self.wake()
        self.close()


class HandStarted(ManagedMachine):
    """A VM that a test started by hand; a `with` block ends it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if error is None and self.crash is not None:
            raise self.crash
