"""The handle of one virtual machine: what a test holds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pytest_maqet.config import VmConfig
from pytest_maqet.errors import MaqetError, NotSupported
from pytest_maqet.guest.commands import CommandRequest, CompletedCommand
from pytest_maqet.guest.console import Console
from pytest_maqet.guest.guest_process import GuestProcess
from pytest_maqet.machine import evidence, power
from pytest_maqet.machine.expecting import Caught, expecting
from pytest_maqet.machine.forwarding import forward
from pytest_maqet.machine.guest_access import GuestCalls
from pytest_maqet.machine.host import Host
from pytest_maqet.machine.life import Life
from pytest_maqet.machine.qmp_handle import QmpHandle
from pytest_maqet.machine.state_calls import StateCalls


class VirtualMachine(StateCalls):
    """One VM. Everything blocks until done and takes `timeout` in seconds.

    Whatever fails raises a MaqetError that says what was awaited, for how long, what was seen last, and the
    console's tail. If QEMU dies, the guest panics or the host's disk is full, every wait and command in
    flight fails at once with that cause. Handles may be used from any thread, not from a forked child.
    """

    def __init__(self, config: VmConfig, host: Host, life: Life, *, owned: bool = True) -> None:
        super().__init__(config, host, life, owned=owned)
        self.qmp = QmpHandle(self)
        self._access = GuestCalls(self)

    def __repr__(self) -> str:
        return f"<VirtualMachine {self.name!r} {self.started_by} pid {self.pid}>"

    # -- identity ------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The VM's name in the YAML."""
        return self.config.name

    @property
    def status(self) -> str:
        """QEMU's run state ("running", "paused", "shutdown", "guest-panicked"…), or "stopped"."""
        if self.life.vitals.exit is not None:
            return "stopped"
        return self.on_loop(self.life.run_state(self.deadline(None, self.config.timeouts.qmp)))

    @property
    def pid(self) -> int:
        """QEMU's process id. The process may have ended: `status` tells."""
        return self.life.process.pid

    @property
    def accel(self) -> str:
        """The accelerator in use: "kvm", "hvf" or "tcg"."""
        return self.life.facts.accelerator

    @property
    def started_by(self) -> str:
        """How the VM came up: "boot", or "clone" (of a template)."""
        return self.life.facts.started_by

    @property
    def command_line(self) -> str:
        """QEMU's command line, quoted for a shell."""
        return self.life.facts.command_line

    @property
    def console_log(self) -> Path:
        """The file with all that the first serial port has said, as the guest sent it."""
        return self.life.directory.serial_log(self.console_name(None))

    @property
    def workdir(self) -> Path:
        """The VM's directory in this run: sockets, logs, overlays. It goes with the VM."""
        return self.life.directory.path

    @property
    def artifacts(self) -> Path:
        """The folder for what this test wants to keep; made when asked for."""
        self.artifacts_folder.mkdir(parents=True, exist_ok=True)
        return self.artifacts_folder

    # -- the guest -----------------------------------------------------------------------------------------

    def run(
        self,
        command: str | Sequence[str],
        *,
        check: bool = True,
        timeout: float | None = None,
        input: str | bytes | None = None,  # noqa: A002 - subprocess.run's word
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        encoding: str | None = "utf-8",
    ) -> CompletedCommand[Any]:
        """Run a command in the guest and return its result; a `str` goes to `/bin/sh -c`.

        `timeout` in seconds (default: `timeouts: command`). With `encoding=None` input and outputs are bytes.
        Raises CommandError for a status other than 0 (unless `check=False`), CommandTimeout, ChannelError.
        """
        request = CommandRequest.of(command, input=input, env=env, cwd=cwd, encoding=encoding)
        return self._access.run(request, timeout, check=check)

    def spawn(
        self,
        command: str | Sequence[str],
        *,
        timeout: float | None = None,
        input: str | bytes | None = None,  # noqa: A002 - as in run
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        encoding: str | None = "utf-8",
    ) -> GuestProcess[Any]:
        """Start a command in the guest and return at once; leaving its `with` block ends it.

        `timeout` in seconds is for the start alone.
        """
        request = CommandRequest.of(command, input=input, env=env, cwd=cwd, encoding=encoding)
        return self._access.spawn(request, timeout)

    @property
    def channel(self) -> str:
        """The name of the channel that commands take ("agent" or "console"); picked at the first use."""
        return self._access.channel_name()

    @property
    def console(self) -> Console:
        """The first serial port, to talk to."""
        return self.consoles[self.console_name(None)]

    @property
    def consoles(self) -> Mapping[str, Console]:
        """Every serial port by its name in `serial:`."""
        return self._access.consoles()

    # -- network -------------------------------------------------------------------------------------------

    def address(self, port: int) -> tuple[str, int]:
        """Where the host reaches a TCP port of the guest: `(host, port)`.

        A port that is not forwarded yet is forwarded now. Raises NotSupported without a user network.
        """
        deadline = self.deadline(None, self.config.timeouts.qmp)
        return self.on_loop(forward(self.life, port, deadline))

    def forward(self, port: int) -> tuple[str, int]:
        """Forward a free host port to a TCP port of the guest, at run time; as `address`."""
        return self.address(port)

    def url(self, port: int, path: str = "/", *, scheme: str = "http") -> str:
        """A URL by which the host reaches a port of the guest."""
        host, host_port = self.address(port)
        return f"{scheme}://{host}:{host_port}{path if path.startswith('/') else '/' + path}"

    # -- power ---------------------------------------------------------------------------------------------

    def start(self, wait: bool = True, *, timeout: float | None = None, **overrides: Any) -> None:  # noqa: FBT001, FBT002 - the contract's signature
        """Boot a stopped VM from its current disks; `wait` for its `ready:` list.

        `overrides` change its configuration from here on. Raises NotSupported while it runs.
        """
        if self.life.vitals.exit is None:
            raise NotSupported(
                f"{self.name} runs already", hint="stop it first, or use vm.reset() or vm.reboot()"
            )
        self.shared_use.refuse_unless_alone("start")
        self.boot_again(self.host.reconfigure(self.config, overrides) if overrides else self.config)
        if wait:
            self.wait.ready(timeout)

    def stop(self, *, timeout: float | None = None) -> None:
        """Stop the VM: ACPI power button, after `timeout` (default `timeouts: stop`) quit, then kill.

        Raises QemuDied when QEMU crashes over that: what the guest wrote last may be missing on its disks.
        """
        self.shared_use.refuse_unless_alone("stop")
        if self.life.vitals.exit is None:
            self.on_loop(power.stop(self.life, self.deadline(timeout, self.config.timeouts.stop)))
            power.refuse_crash(self.life)

    def powerdown(self) -> None:
        """Press the ACPI power button; `wait.shutdown()` waits for the guest to obey."""
        self.shared_use.refuse_unless_alone("powerdown")
        self.on_loop(power.powerdown(self.life, self.deadline(None, self.config.timeouts.qmp)))

    def reboot(self, wait: bool = True, *, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002 - the contract's signature
        """Ask the guest to reboot; `wait` for its `ready:` list after that."""
        self.shared_use.refuse_unless_alone("reboot")
        starts = self.console_ends()
        power.reboot(self, self.deadline(timeout, self.config.timeouts.ready))
        if wait:
            self.wait_ready(timeout, starts)

    def reset(self, wait: bool = False, *, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002 - the contract's signature
        """Press the reset button; `wait` for the `ready:` list after that. A panicked guest runs again."""
        self.shared_use.refuse_unless_alone("reset")
        starts = self.console_ends()
        self.on_loop(power.reset(self.life, self.deadline(None, self.config.timeouts.qmp)))
        if wait:
            self.wait_ready(timeout, starts)

    def pause(self) -> None:
        """Stop the VM's clock and CPUs (QMP `stop`)."""
        self.shared_use.refuse_unless_alone("pause")
        self.qmp.execute("stop")

    def resume(self) -> None:
        """Let a paused VM go on (QMP `cont`)."""
        self.shared_use.refuse_unless_alone("resume")
        self.qmp.execute("cont")

    def kill(self) -> None:
        """Cut the power: SIGKILL to QEMU, nothing is flushed."""
        self.shared_use.refuse_unless_alone("kill")
        if self.life.vitals.exit is None:
            self.on_loop(power.kill(self.life))

    # -- failures, sharing, evidence -----------------------------------------------------------------------

    def expecting(
        self,
        kind: type[MaqetError] | None = None,
        *,
        match: str | None = None,
        fail_on: str | None = None,
        timeout: float | None = None,
    ) -> AbstractContextManager[Caught]:
        """`with vm.expecting(GuestPanic, match=…) as caught:` — inside, that failure fails no wait.

        Leaving the block waits for the failure up to `timeout` seconds (default `timeouts: wait`), after that
        `caught.value` is it. `kind` is GuestPanic, QemuDied or DiskError; `fail_on` is a console pattern that
        becomes a failure for the block. A command in flight ends with the failure, and the block with it. The
        block may stop and start the VM.
        """
        seconds = self.config.timeouts.wait
        return expecting(self, kind, match, fail_on, lambda: self.deadline(timeout, seconds))

    def exclusive(self, timeout: float | None = None) -> AbstractContextManager[None]:
        """Have a `run`-scoped VM to oneself, across workers; `timeout` as in `timeouts: lock`.

        Waits until no test of another worker uses the VM, and keeps them waiting meanwhile. Power calls on a
        `run` VM are allowed inside only. May be nested. Raises LockTimeout naming the holder.
        """
        return self.shared_use.hold_alone(self.config.timeouts.lock if timeout is None else timeout)

    def screenshot(self, path: Path | None = None) -> Path:
        """Save the guest's screen as PNG and return the file's path (default: in `artifacts`).

        Raises NotSupported for a VM without a display.
        """
        if not self.life.facts.has_display:
            raise NotSupported(
                f"{self.name} has no display to take a picture of", hint="`vga: std` gives it one"
            )
        target = path or self.artifacts / f"{self.name}-{time.strftime('%H%M%S')}.png"
        self.qmp.execute("screendump", filename=str(target.absolute()), format="png")
        return target

    def storage_info(self) -> list[dict[str, Any]]:
        """Every disk and share: configured and resolved paths, format, sizes, whether it is writable."""
        return evidence.storage_info(self)

    def report_sections(self) -> list[tuple[str, str]]:
        """Title and text of what a failed test's report shows of this VM."""
        return evidence.report_sections(self)

    def save_artifacts(self, folder: Path) -> list[Path]:
        """Copy logs, events, command line and (where there is a display) a screenshot into `folder`."""
        return evidence.save(self, folder)
