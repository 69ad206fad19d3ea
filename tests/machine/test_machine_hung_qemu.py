"""A QEMU that is stopped or stuck: every call ends at its deadline and says so, and the VM can be ended."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_maqet import GuestPanic, MaqetError, StartError, VirtualMachine, WaitTimeout
from pytest_maqet.config.vm_model import Timeouts
from pytest_maqet.machine import launch
from pytest_maqet.runs.process_state import process_state

#: What the calls are given, in seconds, by themselves or as the VM's `timeouts:`.
SHORT = 0.15
#: None may take longer than this, on a busy machine either. Their defaults and the time in which a command is
#: ended in the guest (10 s) are longer.
BOUND = 8.0
STOPPED = re.compile(r"QEMU of web \(pid \d+\) is stopped: its process is in state T")


def stop_process(pid: int) -> None:
    """SIGSTOP, and wait until all its threads have heard of it."""
    os.kill(pid, signal.SIGSTOP)
    until = time.monotonic() + 30
    while (state := process_state(pid)) is None or not state.stopped:
        assert time.monotonic() < until, "the process does not stop"
        time.sleep(0.002)


@pytest.fixture(scope="module")
def stopped(host, tmp_path_factory):
    """A Linux guest whose QEMU is stopped in the middle of things, its timeouts short from then on."""
    from dataclasses import replace

    from pytest_maqet.config import VmConfig

    config = VmConfig.model_validate(
        {"name": "web", "image": "builtin:linux", "vga": "std", "network": [{"user": {}}]}
    )
    vm = launch(config, replace(host, timeout_scale=1.0, artifacts=tmp_path_factory.mktemp("a")))
    try:
        vm.checkpoint("a")
        vm.spawned = vm.spawn("sleep 1000")  # type: ignore[attr-defined]
        vm.shell = vm.console.shell("# ")  # type: ignore[attr-defined]
        short = dict.fromkeys(Timeouts.model_fields, SHORT)
        vm.config = vm.life.config = config.model_copy(update={"timeouts": Timeouts(**short)})
        stop_process(vm.pid)
        yield vm
    finally:
        vm.close()


def an_event(vm):
    with vm.qmp.events("RESET") as events:
        events.get()


def an_expected_panic(vm):
    with vm.expecting(GuestPanic):
        pass


CALLS: dict[str, Callable[[Any], object]] = {
    "status": lambda vm: vm.status,
    "qmp.execute": lambda vm: vm.qmp.execute("query-status"),
    "qmp.schema": lambda vm: vm.qmp.schema(),
    "qmp.events": an_event,
    "run": lambda vm: vm.run("true"),
    "run timeout=": lambda vm: vm.run("true", timeout=SHORT),
    "spawn": lambda vm: vm.spawn("true"),
    "spawned.wait": lambda vm: vm.spawned.wait(SHORT),
    "spawned.returncode": lambda vm: vm.spawned.returncode,
    "spawned.stdout": lambda vm: vm.spawned.stdout,
    "spawned.kill": lambda vm: vm.spawned.kill(),
    "spawned.close": lambda vm: vm.spawned.close(),
    "console.send": lambda vm: vm.console.send("true\n"),
    "console.expect": lambda vm: vm.console.expect("never", SHORT),
    "console.run": lambda vm: vm.console.run("true"),
    "console.shell": lambda vm: vm.shell.run("true"),
    "wait.ready": lambda vm: vm.wait.ready(),
    "wait.console": lambda vm: vm.wait.console("never"),
    "wait.console raw": lambda vm: vm.wait.console("never", raw=True),
    "wait.event": lambda vm: vm.wait.event("RESET"),
    "wait.status": lambda vm: vm.wait.status("paused"),
    "wait.port": lambda vm: vm.wait.port(80),
    "wait.port banner": lambda vm: vm.wait.port(80, banner="SSH"),
    "wait.closed": lambda vm: vm.wait.closed(80),
    "wait.http": lambda vm: vm.wait.http(80),
    "wait.agent": lambda vm: vm.wait.agent(),
    "wait.succeeds": lambda vm: vm.wait.succeeds("true"),
    "wait.fails": lambda vm: vm.wait.fails("true"),
    "wait.shutdown": lambda vm: vm.wait.shutdown(),
    "wait.exit": lambda vm: vm.wait.exit(),
    "wait.panic": lambda vm: vm.wait.panic(),
    "wait.until": lambda vm: vm.wait.until(lambda: False),
    "wait.until(wait)": lambda vm: vm.wait.until(lambda: vm.wait.console("never", timeout=600)),
    "wait.until(run)": lambda vm: vm.wait.until(lambda: vm.run("true", timeout=600)),
    "wait.all": lambda vm: vm.wait.all(console="never", event="RESET", port=80),
    "expecting": an_expected_panic,
    "address": lambda vm: vm.address(80),
    "powerdown": lambda vm: vm.powerdown(),
    "reboot": lambda vm: vm.reboot(),
    "reset": lambda vm: vm.reset(),
    "reset wait": lambda vm: vm.reset(wait=True),
    "pause": lambda vm: vm.pause(),
    "resume": lambda vm: vm.resume(),
    "screenshot": lambda vm: vm.screenshot(),
    "checkpoint": lambda vm: vm.checkpoint("b"),
    "restore": lambda vm: vm.restore("a"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_to_a_stopped_qemu_ends_with_its_cause(stopped, name):
    began = time.monotonic()
    with pytest.raises(MaqetError) as caught:
        CALLS[name](stopped)
    assert time.monotonic() - began < BOUND, f"{name} outlived its deadline of {SHORT} s by far"
    assert STOPPED.search(str(caught.value)), f"{name} does not say why:\n{caught.value}"


#: What needs no answer of QEMU.
ANSWERLESS: dict[str, Callable[[Any], object]] = {
    "health": lambda vm: STOPPED.match(vm.health()),
    "console.text": lambda vm: "guest ready" in vm.console.text(),
    "storage_info": lambda vm: vm.storage_info() == [],
    "report_sections": lambda vm: any("ready" in text for _, text in vm.report_sections()),
    "save_artifacts": lambda vm: vm.save_artifacts(vm.artifacts),
    "exclusive": lambda vm: vm.exclusive(SHORT).__enter__() is None,
    "checkpoints": lambda vm: vm.checkpoints == ("a",),
    "set_mark": lambda vm: vm.set_mark() is None,
}


@pytest.mark.parametrize("name", ANSWERLESS)
def test_what_needs_no_answer_works_on(stopped, name):
    began = time.monotonic()
    assert ANSWERLESS[name](stopped)
    assert time.monotonic() - began < BOUND, f"{name} waited for a QEMU that is stopped"


def test_waits_of_many_threads_end(stopped):
    errors = []

    def wait() -> None:
        try:
            stopped.wait.console("never")
        except WaitTimeout as error:
            errors.append(error)

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
    assert len(errors) == 8


def test_everything_works_again_when_it_goes_on(stopped):
    """Last in this file that uses the stopped VM: what was asked meanwhile has done no harm."""
    stopped.config = stopped.life.config = stopped.config.model_copy(update={"timeouts": Timeouts()})
    os.kill(stopped.pid, signal.SIGCONT)
    stopped.restore("a")  # it was asked to power off, too
    assert stopped.run("echo alive").stdout == "alive\n"


# -- the watchdog ------------------------------------------------------------------------------------------


def stuck(vm: VirtualMachine, tmp_path: Path) -> None:
    """Its main loop opens a FIFO that nobody reads, and does not come back: alive, but deaf to `quit`."""
    fifo = tmp_path / "nobody-reads"
    os.mkfifo(fifo)
    with pytest.raises(WaitTimeout):
        vm.qmp.execute("screendump", filename=str(fifo), timeout=0.02)


def stopped_process(vm: VirtualMachine, tmp_path: Path) -> None:
    stop_process(vm.pid)


@pytest.mark.parametrize("fault", [stuck, stopped_process])
@pytest.mark.parametrize("end", ["stop", "kill", "close"])
def test_a_qemu_that_ignores_quit_is_killed(boot, tmp_path, fault, end):
    vm = boot(vga="std")
    fault(vm, tmp_path)
    pid = vm.pid
    {"stop": lambda: vm.stop(timeout=0.1), "kill": vm.kill, "close": vm.close}[end]()
    state = process_state(pid)
    assert state is None or state.letter == "Z", f"QEMU still runs after vm.{end}(): {state}"


def test_teardown_stop_does_not_wait_for_a_stopped_qemu(boot):
    vm = boot(teardown="stop", timeouts={"stop": 600})
    stop_process(vm.pid)
    vm.close()  # 600 s × 8, if it did
    assert process_state(vm.pid) is None


def test_a_qemu_that_hangs_before_it_greets_is_a_start_error(boot, tmp_path):
    wrapper = tmp_path / "qemu"
    wrapper.write_text(
        '#!/bin/sh\ncase "$*" in *logfile=*) echo $$ >>"$0.pids"; kill -STOP $$;; esac\n'
        'exec qemu-system-x86_64 "$@"\n'
    )
    wrapper.chmod(0o755)
    with pytest.raises(StartError, match="did not greet") as caught:
        boot(binary=str(wrapper), timeouts={"qmp": 0.1})
    assert STOPPED.search(str(caught.value)), str(caught.value)
    for pid in wrapper.with_name("qemu.pids").read_text().split():
        assert process_state(int(pid)) is None, "the stopped QEMU was left behind"


def test_teardown_does_not_wait_for_a_command_to_be_taken(boot):
    """A QEMU that hangs takes nothing out of its socket: what does not fit into it is never sent."""
    vm = boot()
    stop_process(vm.pid)
    for _ in range(2):
        with pytest.raises(WaitTimeout, match="did not answer"):
            vm.qmp.execute("human-monitor-command", command_line="x" * 3_000_000, timeout=0.02)
    closing = threading.Thread(target=vm.close, daemon=True)
    closing.start()
    closing.join(60)
    assert not closing.is_alive(), "teardown waits for a connection that swallows nothing any more"
