"""The life signs of one QEMU process: consoles, events, failures, exit; and the pulse that wakes waiters."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import QemuDied
from pytest_maqet.file_watch import lease_watch, release_watch
from pytest_maqet.guest.console_log import ConsoleLog
from pytest_maqet.guest.serial_frames import hide_traffic
from pytest_maqet.loop import Pulse
from pytest_maqet.qemu.events import Mailbox
from pytest_maqet.runs.bounded_log import give_back, last_bytes
from pytest_maqet.runs.exit_status import Exit, read_exit
from pytest_maqet.runs.process import QemuProcess
from pytest_maqet.runs.process_state import ProcessState, process_state
from pytest_maqet.waiting.failures import FailureWatch
from pytest_maqet.waiting.host_disk import disk_error, full_note, stopped_by

#: The id of the guest agent's port on QEMU's command line.
AGENT_PORT = "agent-port"
#: The id of maqet-wake's port on QEMU's command line.
WAKE_PORT = "wake-port"
#: The id of maqet-exec's port on QEMU's command line.
EXEC_PORT = "exec-port"
#: The ids of the jobs that put the guest back in time begin so: every process that uses the VM sees them end.
RESTORE_JOB = "maqet-restore-"
#: How many lines of the console an error shows.
TAIL_LINES = 15
#: How many bytes of QEMU's stderr are looked at for that.
STDERR_TAIL = 16 * 1024


class Vitals:
    """Everything that can wake a wait; loop-thread only.

    `consoles` are the serial lines by name, the first one is the guest's main console.
    """

    def __init__(
        self,
        vm_name: str,
        logs: Mapping[str, Path],
        fail_on: tuple[tuple[str, str], ...],
        stderr_log: Path,
        mailbox: Mailbox | None = None,
    ) -> None:
        self.vm_name = vm_name
        self.pulse = Pulse()
        self.mailbox = mailbox or Mailbox()
        self.consoles = {name: ConsoleLog(path, self._console_grew) for name, path in logs.items()}
        self.failures = FailureWatch(vm_name, fail_on, self.context, self.pulse.beat)
        self.exit: Exit | None = None
        self.ending = False  # its process is no more; `exit` follows when it is known how that ended
        #: set once we ask QEMU to end, with the words for it ("stopped by vm.stop()")
        self.end_wanted: str | None = None
        #: QEMU's reason once the guest has powered off, until it is reset
        self.powered_off: str | None = None
        #: whether QEMU was told to stop the guest's CPUs, and not yet to go on
        self.paused = False
        #: whether the guest agent had opened its port and has closed it since
        self.agent_gone = False
        #: whether maqet-wake has its port open in the guest
        self.wake_listens = self.wake_seen = False
        #: whether maqet-exec has its port open in the guest, and whether it ever had
        self.exec_listens = self.exec_seen = False
        self.on_reset: Callable[[], None] | None = None  # called when the guest begins anew
        #: where the drives lie on the host, by their node names
        self.disks: Mapping[str, Path] = {}
        self._stderr_log = stderr_log
        self._stderr_cut = 0
        self._process: QemuProcess | None = None
        self._watches: list[int] = []
        self._loop = asyncio.get_running_loop()
        self._skip_the_past()

    @property
    def console(self) -> ConsoleLog | None:
        """The main console, where the VM has one."""
        return next(iter(self.consoles.values()), None)

    @property
    def pid(self) -> int:
        """QEMU's process id; 0 while none is followed."""
        return self._process.pid if self._process is not None else 0

    def process_state(self) -> ProcessState | None:
        """QEMU's process as the kernel sees it; None when it is not followed or has ended."""
        if self._process is None or self.exit is not None:
            return None
        return process_state(self._process.pid)

    def follow(self, process: QemuProcess) -> None:
        """Begin to follow the process and its console logs."""
        self._process = process
        self._loop.add_reader(process.fileno(), self._process_ended)
        watch = lease_watch(self._loop)
        for console in self.consoles.values():
            self._watches.append(watch.add(console.path, console.read_on))
            console.read()
        with contextlib.suppress(OSError):  # it is made by QEMU's keeper
            self._watches.append(watch.add(self._stderr_log, self._stderr_grew))

    def _stderr_grew(self) -> None:
        self._stderr_cut, _ = give_back(self._stderr_log, self._stderr_cut)

    def _skip_the_past(self) -> None:
        """What the logs hold of lives before this one can be searched, but is no failure of this one."""
        for console in self.consoles.values():
            console.read()
            self.failures.skip(console)

    def unfollow(self) -> None:
        """Stop following and close the logs. Idempotent."""
        if self._process is None:
            return
        self._loop.remove_reader(self._process.fileno())
        watch = lease_watch(self._loop)
        for number in self._watches:
            watch.remove(number)
        release_watch(self._loop)
        release_watch(self._loop)
        for console in self.consoles.values():
            console.read()
            console.close()
        self._process = None
        self._watches = []

    def on_event(self, message: Mapping[str, Any]) -> None:
        """Take in a QMP event."""
        self.mailbox.put(message)
        heard = {
            "GUEST_PANICKED": self._panicked,
            "RESET": self._reset,
            "BLOCK_IO_ERROR": self._disk_failed,
            "STOP": self._stopped,
            "RESUME": self._resumed,
            "SHUTDOWN": self._shut_down,
            "VSERPORT_CHANGE": self._port_changed,
            "JOB_STATUS_CHANGE": self._job_changed,
        }.get(message["event"])
        if heard is not None:
            heard(message.get("data", {}))
        self.pulse.beat()

    def _panicked(self, data: Mapping[str, Any]) -> None:
        self._read_to_the_end()
        self.failures.guest_panicked(dict(data))

    def _reset(self, _data: Mapping[str, Any]) -> None:
        self.failures.guest_reset()
        self.powered_off = None
        self.exec_listens = False  # QEMU tells of a port at most once a second
        if self.on_reset is not None:
            self.on_reset()

    def _stopped(self, _data: Mapping[str, Any]) -> None:
        self.paused = True

    def _resumed(self, _data: Mapping[str, Any]) -> None:
        self.paused = False
        self.failures.resumed()

    def _shut_down(self, data: Mapping[str, Any]) -> None:
        self.powered_off = str(data.get("reason", "unknown"))

    def _port_changed(self, data: Mapping[str, Any]) -> None:
        """A program in the guest opened or closed its end of a port."""
        is_open = bool(data["open"])
        if data["id"] == AGENT_PORT:
            self.agent_gone = not is_open
        elif data["id"] == WAKE_PORT:
            self.wake_listens = is_open
            self.wake_seen = self.wake_seen or is_open
        elif data["id"] == EXEC_PORT:
            self.exec_listens = is_open
            self.exec_seen = True

    def _disk_failed(self, data: Mapping[str, Any]) -> None:
        if not stopped_by(data):
            return
        file = self.disks.get(str(data.get("node-name")))
        self.failures.disk_failed(lambda: disk_error(self.vm_name, data, file, self.context()))

    def _job_changed(self, data: Mapping[str, Any]) -> None:
        """The guest may stand where it once was: what it said and did since is over then."""
        if not _has_restored(data):
            return
        self._read_to_the_end()
        for console in self.consoles.values():
            self.failures.skip(console)
        self.failures.guest_reset()
        self.powered_off = None
        self.mailbox.mark()

    def read_consoles(self) -> None:
        """Take in what the consoles said up to now."""
        for console in self.consoles.values():
            console.read()

    def _read_to_the_end(self) -> None:
        """Take in what the consoles said, an unfinished line as if it were finished."""
        self.read_consoles()
        for console in self.consoles.values():
            self.failures.scan(console, settled=True)

    async def changed(self, deadline: Deadline) -> bool:
        """Wait until anything changed; false when the deadline came first."""
        try:
            async with asyncio.timeout(deadline.remaining):
                await self.pulse.wait()
        except TimeoutError:
            return False
        return True

    def mark(self) -> None:
        """A new test begins; a failure's line that has begun to show is the last one's, not this one's."""
        self.mailbox.mark()
        if self._process is not None:
            self._read_to_the_end()
        self.failures.mark()

    def context(self) -> str:
        """The end of the console and of QEMU's stderr, for the end of an error message."""
        parts = []
        for name, console in self.consoles.items():
            tail = hide_traffic(console.tail(4 * TAIL_LINES))
            tail = "\n".join(tail.splitlines()[-TAIL_LINES:])
            title = "console" if len(self.consoles) == 1 else f"console {name!r}"
            parts.append(f"{title}, last lines:\n{_indented(tail)}" if tail else f"{title}: nothing yet")
            if console.growing:
                parts.append(console.growing)
        if said := self.stderr_tail():
            parts.append(f"QEMU's stderr:\n{_indented(said)}")
        if note := full_note(self._stderr_log.parent):
            parts.append(note)
        return "\n".join(parts)

    def stderr_tail(self) -> str:
        """What QEMU said last on its stderr."""
        try:
            text = last_bytes(self._stderr_log, STDERR_TAIL).decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.strip().splitlines()[-TAIL_LINES:])

    def death(self) -> QemuDied:
        """QEMU's death in words."""
        found = self.exit or Exit(code=None, signal=None, reason="ended, nobody knows how")
        text, hint = f"died: {found.reason}\n{self.context()}", None
        if self.end_wanted:
            text, hint = f"is not running any more: {self.end_wanted}", "vm.start() boots it again"
        return QemuDied(
            f"{self.vm_name}: QEMU {text}",
            code=found.code,
            signal=found.signal,
            stderr=self.stderr_tail(),
            hint=hint,
        )

    def _console_grew(self) -> None:
        if self._process is not None:
            for console in self.consoles.values():
                self.failures.scan(console)
        self.pulse.beat()

    def _process_ended(self) -> None:
        assert self._process is not None
        self._loop.remove_reader(self._process.fileno())
        self.ending = True
        self._note_exit(0)

    def _note_exit(self, attempt: int) -> None:
        """QEMU is a zombie now; its keeper writes down how it ended within milliseconds."""
        if self._process is None or self.exit is not None:
            return
        self.exit = read_exit(self._process.directory)
        if self.exit is None and attempt < 200:  # 1 s in all: a keeper that was killed writes nothing
            self._loop.call_later(0.005, self._note_exit, attempt + 1)
            return
        if self.exit is None:
            self.exit = Exit(code=None, signal=None, reason="ended together with its keeper")
        self._read_to_the_end()
        self.failures.died(self.death, wanted=self.end_wanted is not None and not self.exit.crashed)
        self.pulse.beat()


def _has_restored(job: Mapping[str, Any]) -> bool:
    """Whether this JOB_STATUS_CHANGE tells of a restore that went well: only then `pending` comes."""
    return bool(job["status"] == "pending" and str(job["id"]).startswith(RESTORE_JOB))


def _indented(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.splitlines())
