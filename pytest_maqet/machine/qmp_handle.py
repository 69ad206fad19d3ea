"""`vm.qmp`: QMP commands and events, blocking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_maqet.deadline import Deadline
from pytest_maqet.loop import Pulse
from pytest_maqet.qemu.events import Kept
from pytest_maqet.waiting.engine import race, timed_out
from pytest_maqet.waiting.failures import told_by

if TYPE_CHECKING:
    from pytest_maqet.machine.core import MachineCore


class EventStream:
    """The events of a `with vm.qmp.events(…)` block, one after the other."""

    def __init__(self, vm: MachineCore, names: tuple[str, ...]) -> None:
        self._vm = vm
        self._names = names
        self._waiting: Kept[Mapping[str, Any]] = Kept()
        self._pulse = Pulse()

    @property
    def dropped(self) -> int:
        """How many events are lost because so many came and nobody got them (`KEPT_EVENTS`)."""
        return self._waiting.dropped

    def take_in(self, message: Mapping[str, Any]) -> None:
        """Called on the loop with each event."""
        if not self._names or message["event"] in self._names:
            self._waiting.append(message, message)
            self._pulse.beat()

    def get(self, timeout: float | None = None) -> Mapping[str, Any]:
        """The next event, waiting up to `timeout` seconds (default: `timeouts: wait`) for it.

        Raises WaitTimeout, or the VM's failure when the guest panics or QEMU dies meanwhile.
        """
        deadline = self._vm.deadline(timeout, self._vm.config.timeouts.wait)
        return self._vm.on_loop(self._next(deadline))

    async def _next(self, deadline: Deadline) -> Mapping[str, Any]:
        vitals = self._vm.life.vitals
        # Who asks for the event of a panic does not want to be told of the panic by an error.
        try:
            return await race(vitals, self._some(), deadline, told_by(*self._names))
        except TimeoutError:
            what = f"a QMP event out of {', '.join(self._names) or 'all'}"
            raise timed_out(vitals, what, "none came", deadline) from None

    async def _some(self) -> Mapping[str, Any]:
        while not self._waiting:
            await self._pulse.wait()
        return self._waiting.popleft()


class QmpHandle:
    """QMP of one VM, as docs/interop/qmp-spec.rst and the QMP reference of QEMU tell it."""

    def __init__(self, vm: MachineCore) -> None:
        self._vm = vm

    def execute(self, command: str, /, *, timeout: float | None = None, **arguments: Any) -> Any:
        """Execute a QMP command and return QEMU's `return` value.

        Argument names take `_` for `-` where QEMU's name has one: `execute("human-monitor-command",
        command_line="info usernet")`. `timeout` in seconds, by default `timeouts: qmp`. Raises
        QMPCommandError (class, description, command), QemuDied when QEMU ends meanwhile, WaitTimeout.
        """
        vm = self._vm
        deadline = vm.deadline(timeout, vm.config.timeouts.qmp)
        spelled = {self._spelled(command, name): value for name, value in arguments.items()}
        return vm.on_loop(vm.life.execute(command, spelled, deadline))

    def schema(self) -> Any:
        """QEMU's own description of all its commands and events (query-qmp-schema)."""
        return self.execute("query-qmp-schema")

    @contextmanager
    def events(self, *names: str) -> Iterator[EventStream]:
        """Collect events of these names (all, without names) from here to the end of the block.

        A `vm.stop()` and `vm.start()` in between change nothing.

        Independent of `vm.wait.event`: an event seen here is still in the mailbox.
        """
        stream = EventStream(self._vm, names)
        end = self._vm.call_on_loop(self._vm.life.vitals.mailbox.listen, stream.take_in)
        try:
            yield stream
        finally:
            self._vm.call_on_loop(end)

    def _spelled(self, command: str, name: str) -> str:
        if "_" not in name or command in _UNDERSCORED:
            return name
        return name.replace("_", "-")


#: Commands whose arguments' names are taken as they are: some of them have underscores (query-qmp-schema of
#: QEMU 7.2; properties of devices and objects, as in virtio-blk's physical_block_size).
_UNDERSCORED = frozenset({"block_set_io_throttle", "device_add", "netdev_add", "object-add"})
