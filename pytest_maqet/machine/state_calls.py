"""The state calls of a handle: checkpoints of a running VM, and templates made of it."""

from __future__ import annotations

from pytest_maqet.deadline import Deadline
from pytest_maqet.machine import checkpoints
from pytest_maqet.machine.core import MachineCore
from pytest_maqet.templates.template import Template

#: What `restore` brings back without a checkpoint of that name.
READY = "ready"


class StateCalls(MachineCore):
    """What `VirtualMachine` offers to save the state of a guest and to return to it."""

    def checkpoint(self, name: str, *, timeout: float | None = None) -> None:
        """Save memory, devices and disks together under `name`; a checkpoint of that name is replaced.

        The guest stands still meanwhile, and runs or is paused after it as before. `timeout` in seconds
        (default: `timeouts: command`). Raises NotSupported for a guest that has panicked or powered off, a
        writable disk that is not qcow2, or a device that QEMU cannot save; QMPCommandError when the save
        failed, as on a full disk. A checkpoint lasts as long as its QEMU process.
        """
        if not isinstance(name, str):
            raise TypeError(f"the name of a checkpoint is a str, not {name!r}")
        if not name.strip():
            raise ValueError("the name of a checkpoint must not be empty")
        self.shared_use.refuse_unless_alone("checkpoint")
        self.on_loop(checkpoints.take(self.life, name, self._state_deadline(timeout)))

    def restore(self, name: str, *, timeout: float | None = None) -> None:
        """Put memory, devices and disks back to a checkpoint, as often as wanted, after a panic too.

        The guest runs or is paused as it was then. QEMU goes on: pid, forwarded ports, console log and events
        stay, and waits begin here: they see what the guest prints and does from now on. Connections into the
        guest, commands in flight and spawned processes of a later time are void. `timeout` as in
        `checkpoint`. Raises MaqetError for a name that is not there, QemuDied when QEMU has ended.

        `restore("ready")` needs no checkpoint of that name: it makes the VM what it was when it became ready,
        in a new QEMU process behind the same handle, with the same forwarded ports (new ones when QEMU had
        ended); `timeout` does not count. Raises NotSupported where the VM cannot be a clone.
        """
        self.shared_use.refuse_unless_alone("restore")
        if name == READY and name not in self.checkpoints:
            self.host.restore_ready(self)
            return
        deadline = self._state_deadline(timeout)
        checkpoint, wake = self.on_loop(checkpoints.load(self.life, name, deadline))
        self.mark_consoles()
        self.wakening = self.on_loop(checkpoints.go_on(self.life, checkpoint, wake, deadline))

    def freeze(self) -> Template:
        """Make a template of the VM as it is now, for clones in this run; the VM itself goes on.

        Its memory and disks are copied, which takes a second or so for some hundred megabytes in use. Open
        conversations with the guest are ended. Raises NotSupported with QEMU's reason where that cannot be.
        """
        self.shared_use.refuse_unless_alone("freeze")
        return self.host.freeze(self)

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The names that `restore` takes, the oldest checkpoint first."""
        if self.life.vitals.exit is not None:
            return ()
        return tuple(checkpoints.book_of(self.life).taken)

    def _state_deadline(self, timeout: float | None) -> Deadline:
        return self.deadline(timeout, self.config.timeouts.command)
