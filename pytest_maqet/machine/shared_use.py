"""One process's use of a VM of scope `run`, which all workers share: along with others, or alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from pytest_maqet.config import VmConfig
from pytest_maqet.errors import NotSupported
from pytest_maqet.machine.host import Host
from pytest_maqet.machine.turns import Turns


class SharedUse:
    """From a test's first use of the VM to its end; a VM of another scope is never in anybody's way.

    `scale` is what time-outs are multiplied by.
    """

    def __init__(self, config: VmConfig, host: Host, scale: Callable[[], float]) -> None:
        self._config = config
        self._host = host
        self._scale = scale
        door = host.run.lock_path(f"turns-{config.name}-{config.key[:12]}")
        self._turns = Turns(door, config.name, lambda: host.queueing(config.name, door))

    def begin(self) -> None:
        """A test begins to use the VM: waits while a test of another worker has it alone. Idempotent.

        Raises LockTimeout after `timeouts: lock`, naming who has it.
        """
        if self._config.scope == "run":
            self._turns.share(self._config.timeouts.lock * self._scale(), self._host.owner())

    def end(self) -> None:
        """The test is over. Idempotent."""
        self._turns.leave()

    def hold_alone(self, timeout: float) -> AbstractContextManager[None]:
        """See `VirtualMachine.exclusive`."""
        return self._turns.hold_alone(timeout * self._scale(), self._host.owner())

    @property
    def alone(self) -> bool:
        """Whether this process holds the VM for itself, which others may be waiting for."""
        return self._turns.alone

    @property
    def door(self) -> str | None:
        """What others wait at while this process uses the VM along with more; None while it does not."""
        return self._turns.door

    def refuse_unless_alone(self, call: str) -> None:
        """A VM of scope `run` belongs to all workers: its power is touched by one that holds it alone."""
        if self._config.scope == "run" and not self._turns.alone:
            raise NotSupported(
                f"{self._config.name} is shared by all workers of this run (`scope: run`): {call}() would "
                "hit every one of them",
                hint="hold it alone meanwhile: with vm.exclusive(): …, or mark the test "
                "@pytest.mark.maqet(exclusive=True)",
            )
