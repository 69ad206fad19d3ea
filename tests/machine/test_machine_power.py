"""Power: what each switch does, and what the handle tells of it."""

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from pytest_maqet import Exit, NotSupported, QemuDied, WaitTimeout
from pytest_maqet.machine.starting import new_life


def test_a_booted_vm_runs(boot):
    vm = boot()
    assert vm.status == "running"
    assert vm.started_by == "boot"
    assert vm.accel in ("tcg", "kvm")
    assert str(vm.pid) in repr(vm)
    assert "-name guest=web" in vm.command_line


def test_acpi_power_off_ends_in_shutdown_then_exit(boot):
    vm = boot()
    vm.powerdown()
    assert vm.wait.shutdown() == "guest-shutdown"
    assert vm.status == "shutdown"
    assert vm.wait.shutdown(timeout=1) == "guest-shutdown", "it is still off"
    assert vm.wait.exit() == Exit(0, None, "exited with status 0")
    assert vm.status == "stopped"


def test_stop_asks_first(boot):
    vm = boot()
    vm.stop()
    assert vm.status == "stopped"
    assert vm.wait.event("SHUTDOWN", guest=True)["data"]["reason"] == "guest-shutdown"
    vm.stop()  # a second time is no error


def test_stop_does_not_wait_for_a_guest_that_ignores_the_button(boot):
    vm = boot(image=None, timeouts={"stop": 0.1})  # only firmware: nobody listens to ACPI
    vm.stop()
    assert vm.status == "stopped"


def test_a_crash_while_it_stops_is_told(boot):
    """QEMU has not written all of its disks' metadata then; who starts the VM again has to know."""
    vm = boot(image=None)  # only firmware: QEMU waits for somebody to listen to ACPI
    crash = threading.Timer(0.3, os.kill, (vm.pid, signal.SIGSEGV))
    crash.start()
    with pytest.raises(QemuDied, match="SIGSEGV"):
        vm.stop(timeout=10)
    crash.join()
    assert "SIGSEGV" in str(vm.health())
    vm.stop()  # it is told once
    vm.start()
    assert vm.status == "running"


def test_start_boots_again_and_waits_for_this_boots_banner(boot):
    vm = boot()
    before = vm.pid
    vm.stop()
    vm.start()
    assert vm.pid != before
    assert vm.status == "running"
    banners = vm.console_log.read_text().count("guest ready")
    assert banners == 2, "the log goes on over both lives"


def test_after_a_restart_waits_see_the_new_life_only(boot):
    vm = boot()
    vm.stop()
    vm.start(wait=False)
    vm.wait.console("guest ready")
    with pytest.raises(WaitTimeout):
        vm.wait.event("SHUTDOWN", timeout=0.02)


def test_starts_again_take_no_descriptors(boot):
    vm = boot()
    counts = []
    for _ in range(4):
        vm.kill()
        vm.start()
        counts.append(len(list(Path("/proc/self/fd").iterdir())))
    assert counts[-1] == counts[0], "each start keeps something of the QEMU before"


def test_start_of_a_running_vm_is_refused(boot):
    with pytest.raises(NotSupported, match="runs already"):
        boot().start()


def test_kill_is_a_power_cut(boot):
    vm = boot()
    vm.kill()
    assert vm.status == "stopped"
    assert vm.wait.exit().signal == signal.SIGKILL
    assert vm.unseen_failure() is None, "the test did that itself"


def test_a_wait_on_a_stopped_vm_fails_at_once_and_says_why(boot):
    vm = boot()
    vm.kill()
    began = time.monotonic()
    with pytest.raises(QemuDied, match=r"killed by vm\.kill\(\)") as caught:
        vm.wait.console("never", timeout=30)
    assert "vm.start()" in str(caught.value)
    assert time.monotonic() - began < 10, "it waited for a dead VM"


def test_pause_and_resume(boot):
    vm = boot()
    vm.pause()
    assert vm.wait.status("paused", timeout=5) == "paused"
    assert vm.health() == "it was left in the state 'paused'"
    vm.resume()
    assert vm.wait.status("running", timeout=5) == "running"
    assert [vm.wait.event(name, timeout=1)["event"] for name in ("RESUME", "STOP")] == ["RESUME", "STOP"]


def test_reset_then_event_then_banner(boot):
    vm = boot()
    vm.reset()
    vm.wait.event("RESET", timeout=5)
    vm.wait.console("guest ready")


def test_reset_can_wait_for_ready(boot):
    vm = boot()
    vm.reset(wait=True)
    assert vm.console_log.read_text().count("guest ready") == 2


def test_a_guest_that_powered_off_runs_again_after_reset(boot):
    vm = boot()
    vm.powerdown()
    vm.wait.shutdown()
    vm.reset(wait=True)
    assert vm.status == "running"
    assert vm.health() is None


def test_death_from_outside_ends_a_wait_with_the_signal(boot):
    vm = boot()
    os.kill(vm.pid, signal.SIGKILL)
    with pytest.raises(QemuDied, match="SIGKILL") as caught:
        vm.wait.console("never", timeout=30)
    assert caught.value.signal == signal.SIGKILL
    assert "QEMU died" in vm.health()


def test_quit_by_qmp_is_the_tests_own_wish(boot):
    vm = boot()
    vm.qmp.execute("quit")
    assert vm.wait.exit().code == 0
    assert vm.unseen_failure() is None


def test_close_leaves_no_process_and_no_files(boot, host):
    vm = boot()
    workdir, pid = vm.workdir, vm.pid
    vm.close()
    vm.close()
    assert not workdir.exists(), f"{workdir} is left behind"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_relaunch_puts_a_fresh_qemu_behind_the_same_handle(boot):
    vm = boot()
    before = vm.pid, vm.workdir
    os.kill(vm.pid, signal.SIGKILL)
    vm.wait.exit()
    vm.relaunch(partial(new_life, vm.config, vm.host))
    vm.wait_ready()
    assert vm.health() is None
    assert (vm.pid, vm.workdir) != before


def test_a_forked_child_cannot_use_the_handle(boot):
    vm = boot()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            vm.qmp.execute("query-status")
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent wants to see it
            os.write(writing, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    said = os.read(reading, 10_000).decode()
    os.close(reading)
    assert "forked child" in said, f"the child was told: {said!r}"
    assert vm.status == "running", "the child harmed its parent's VM"
