"""The blocking handle of a command that goes on in the guest: what `vm.spawn` returns."""

from __future__ import annotations

import contextlib
import signal
from types import TracebackType
from typing import Any, Generic, Self

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import MaqetError
from pytest_maqet.guest.caller import Caller
from pytest_maqet.guest.commands import END_GRACE, CommandOutcome, Text, command_timeout
from pytest_maqet.guest.remote_process import RemoteProcess

#: Seconds that `terminate` gives a command at the end of its `with` block before it is killed.
TERMINATE_GRACE = 2.0


class GuestProcess(Generic[Text]):
    """A command that runs in the guest. As a context manager it is ended at the end of the block.

    Each call asks the guest; `timeout` is in seconds, None for the VM's `timeouts: command`.
    """

    def __init__(self, process: RemoteProcess, caller: Caller) -> None:
        self._process = process
        self._call = caller.call
        self._deadline = caller.command_deadline

    @property
    def pid(self) -> int:
        """The process id in the guest."""
        return self._process.pid

    @property
    def command(self) -> str | tuple[str, ...]:
        """What was asked for."""
        return self._process.request.command

    @property
    def returncode(self) -> int | None:
        """The status, 128 + N after signal N; None while it runs."""
        if self._process.returncode is not None:
            return self._process.returncode
        deadline = self._deadline(None)
        return self._call(self._process.poll(deadline), deadline)

    @property
    def stdout(self) -> Text:
        """What it has printed so far."""
        return self._output(0)

    @property
    def stderr(self) -> Text:
        """What it has printed on stderr so far."""
        return self._output(1)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its status.

        Raises CommandTimeout, and lets it run on, when it did not end in time.
        """
        deadline = self._deadline(timeout)
        status = self._call(self._waited(deadline), deadline)
        if status is not None:
            return status
        partial = None
        with contextlib.suppress(MaqetError):  # a guest that is frozen tells nothing any more
            partial = CommandOutcome(0, *self._raw_output(Deadline.after(END_GRACE)))
        raise command_timeout(self._process.vm_name, self._process.request, deadline, partial, ended=False)

    def terminate(self) -> None:
        """Send SIGTERM to it and its children."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to it and its children."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Send a signal to it and its children; nothing happens when it has ended."""
        deadline = self._deadline(None)
        self._call(self._process.signal(number, deadline), deadline)

    def close(self) -> None:
        """End it: SIGTERM, after `TERMINATE_GRACE` seconds SIGKILL; its output stays readable. Idempotent."""
        deadline = self._deadline(None)
        self._call(self._end(deadline), deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A guest that is gone has no processes; what killed it is told by whoever waits for something else.
        with contextlib.suppress(MaqetError, TimeoutError):
            self.close()

    def __repr__(self) -> str:
        state = "running" if self._process.returncode is None else f"status {self._process.returncode}"
        return f"<GuestProcess {self._process.vm_name} pid {self.pid} ({state}): {self._process.request}>"

    async def _end(self, deadline: Deadline) -> None:
        process = self._process
        if process.returncode is None and await process.poll(deadline) is None:
            await process.signal(signal.SIGTERM, deadline)
            with contextlib.suppress(TimeoutError):
                await process.wait(deadline.within(TERMINATE_GRACE * deadline.scale))
        if process.returncode is None:
            await process.signal(signal.SIGKILL, deadline)
            await process.wait(deadline)
        await process.forget(deadline)

    async def _waited(self, deadline: Deadline) -> int | None:
        """The status; None when its time was over."""
        try:
            return await self._process.wait(deadline)
        except TimeoutError:
            return None

    def _raw_output(self, deadline: Deadline) -> tuple[bytes, bytes]:
        return self._call(self._process.output(deadline), deadline)

    def _output(self, index: int) -> Text:
        text: Any = self._process.request.decode(self._raw_output(self._deadline(None))[index])
        return text  # type: ignore[no-any-return]
