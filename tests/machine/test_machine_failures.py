"""What goes wrong in a guest or with QEMU: told at once, told once, and expected where a test says so."""

import os
import signal
import socket
import threading
import time

import pytest

from pytest_maqet import GuestPanic, MaqetError, QemuDied, WaitTimeout
from pytest_maqet.deadline import Deadline


def say(vm, text: str) -> None:
    vm.console.send(text + "\n")


def test_a_panic_ends_a_wait_in_flight(boot):
    vm = boot()
    say(vm, "panic")
    with pytest.raises(GuestPanic) as caught:
        vm.wait.console("never", timeout=30)
    assert "console, last lines" in str(caught.value)
    assert vm.health() == "the guest had panicked"
    assert vm.unseen_failure() is None, "the wait has told it"


def test_a_panic_that_no_wait_saw_is_there_at_the_end(boot):
    vm = boot()
    with vm.qmp.events("GUEST_PANICKED") as panics:
        say(vm, "panic")
        panics.get()
    assert isinstance(vm.unseen_failure(), GuestPanic)
    assert vm.unseen_failure() is None, "it is told once"


def test_wait_panic_returns_it(boot):
    vm = boot()
    say(vm, "panic")
    assert isinstance(vm.wait.panic(), GuestPanic)
    assert vm.unseen_failure() is None


def test_expecting_a_panic(boot):
    vm = boot()
    with vm.expecting(GuestPanic) as caught:
        say(vm, "panic")
    assert isinstance(caught.value, GuestPanic)
    assert vm.unseen_failure() is None
    vm.reset(wait=True)
    assert vm.health() is None, "a guest that was reset is well"


def test_a_guest_that_is_halted_while_it_is_reset_runs_again(boot, monkeypatch):
    """A panic shows on the console a moment before QEMU halts the VM for it."""
    vm = boot()
    asked = vm.life.run_state

    async def and_then_it_is_halted(deadline: Deadline) -> str:
        # The moment lasts microseconds: a `stop` is put into it, once.
        monkeypatch.undo()
        state = await asked(deadline)
        await vm.life.execute("stop", None, deadline)
        return state

    monkeypatch.setattr(vm.life, "run_state", and_then_it_is_halted)
    vm.reset(wait=True, timeout=5)
    assert vm.status == "running"


def test_a_paused_guest_that_is_reset_stays_paused(boot):
    vm = boot()
    vm.pause()
    vm.reset()
    assert vm.status != "running"
    starts = vm.console_ends()
    vm.resume()
    vm.wait_ready(5, starts)


def test_inside_expecting_the_failure_fails_no_wait(boot):
    vm = boot()
    with vm.expecting(GuestPanic):
        say(vm, "panic")
        vm.wait.console("Kernel panic", timeout=5)


def test_expecting_waits_for_the_failure_and_misses_it_in_words(boot):
    with (
        pytest.raises(WaitTimeout, match="expected GuestPanic matching /moon/"),
        boot().expecting(GuestPanic, match="moon", timeout=0.02),
    ):
        pass


def test_expecting_one_failure_does_not_excuse_another(boot):
    vm = boot()
    with pytest.raises(GuestPanic), vm.expecting(QemuDied, timeout=30):
        say(vm, "panic")


def test_expecting_qemus_death(boot):
    vm = boot()
    with vm.expecting(QemuDied) as caught:
        os.kill(vm.pid, signal.SIGKILL)
    assert caught.value.signal == signal.SIGKILL


def test_expecting_a_death_of_ones_own_making(boot):
    vm = boot()
    with vm.expecting(QemuDied) as caught:
        vm.kill()
    assert "vm.kill()" in str(caught.value)


def test_a_restart_that_fails_leaves_a_handle_that_can_be_asked(boot):
    vm = boot()
    vm.stop()
    with pytest.raises(MaqetError):
        vm.boot_again(vm.config.model_copy(update={"binary": "/bin/false"}))
    vm.set_mark()
    assert vm.status == "stopped"
    assert vm.unseen_failure() is None
    vm.start()
    assert vm.health() is None


def test_expecting_a_console_pattern(boot):
    vm = boot()
    with vm.expecting(fail_on="echo: BUG.*") as caught:
        say(vm, "BUG 17")
    assert "BUG 17" in str(caught.value)
    assert vm.unseen_failure() is None


def test_after_an_expected_pattern_the_guest_can_be_talked_to(boot):
    vm = boot()
    with vm.expecting(fail_on="echo: BUG.*"):
        say(vm, "BUG 17")
    say(vm, "fine")
    vm.wait.console("echo: fine", timeout=5)


def test_an_expectation_goes_on_over_a_restart(boot):
    vm = boot()
    with vm.expecting(fail_on="echo: BUG.*") as caught:
        vm.stop()
        vm.start()
        say(vm, "BUG 17")
        vm.wait.console("echo: BUG", timeout=5)
    assert "BUG 17" in str(caught.value)
    say(vm, "BUG 18")
    vm.wait.console("echo: BUG 18", timeout=5)
    assert vm.unseen_failure() is None, "the expectation outlived its block"


def test_a_failure_of_the_boot_itself_may_be_expected(boot):
    vm = boot()
    vm.stop()
    with vm.expecting(fail_on="guest ready"):
        vm.start(wait=False)
    assert vm.unseen_failure() is None
    vm.wait.console("guest ready", timeout=5)


def test_an_error_of_the_block_itself_is_raised(boot):
    with pytest.raises(ZeroDivisionError), boot().expecting(GuestPanic, timeout=30):
        raise ZeroDivisionError


def test_the_value_is_there_only_after_the_block(boot):
    vm = boot()
    with vm.expecting(GuestPanic) as caught:
        with pytest.raises(LookupError, match="after the with block"):
            _ = caught.value
        say(vm, "panic")


@pytest.mark.parametrize("wrong", [WaitTimeout, MaqetError])
def test_expecting_knows_its_kinds(boot, wrong):
    with pytest.raises(TypeError, match="GuestPanic, QemuDied and DiskError"), boot().expecting(wrong):
        pass


def test_fail_on_of_the_configuration(boot):
    vm = boot(fail_on=["echo: OUCH"])
    say(vm, "OUCH here")
    with pytest.raises(GuestPanic, match="OUCH here") as caught:
        vm.wait.console("never", timeout=30)
    assert caught.value.pattern == "echo: OUCH"


def test_fail_on_can_be_off(boot):
    vm = boot(fail_on=False)
    say(vm, "Kernel panic - not syncing: only text")
    vm.wait.console("echo: Kernel panic", timeout=5)
    assert vm.unseen_failure() is None


def test_a_new_mark_forgives_a_pattern(boot):
    vm = boot(fail_on=["echo: OUCH"])
    # Not `say`: a call of the VM's own would tell the failure, if the guest is quick to answer.
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(vm.life.directory.serial_socket("main")))
        line.sendall(b"OUCH\n")
        deadline = Deadline.after(20)
        while "echo: OUCH" not in vm.console_log.read_text() and not deadline.expired:
            time.sleep(0.01)  # a wait of the VM's own would tell the failure, and so forgive it
    vm.set_mark()
    assert vm.unseen_failure() is None, "the next test is blamed for the one before"
    say(vm, "fine")
    vm.wait.console("echo: fine", timeout=5)


def test_every_thread_in_a_wait_is_told_at_once(boot):
    vm = boot()
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            vm.wait.console("never", timeout=30)
        except MaqetError as error:
            errors.append(error)

    threads = [threading.Thread(target=wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)  # let all of them wait
    os.kill(vm.pid, signal.SIGKILL)
    for thread in threads:
        thread.join(timeout=20)
    assert [type(error) for error in errors] == [QemuDied] * 4


def test_sections_and_artifacts_tell_the_story(boot, tmp_path):
    vm = boot()
    say(vm, "hello report")
    vm.wait.console("echo: hello report")
    sections = dict(vm.report_sections())
    assert "echo: hello report" in sections["console of web"]
    assert "RESUME" in sections["QMP events of web"]
    assert any("command line" in title for title in sections)
    saved = {path.name for path in vm.save_artifacts(tmp_path / "kept")}
    assert {"web-console-main.log", "web-events.jsonl", "web-command-line.txt"} <= saved


def test_a_screen_is_saved_as_png(boot, tmp_path):
    vm = boot(vga="std")
    target = vm.screenshot(tmp_path / "screen.png")
    assert target.read_bytes().startswith(b"\x89PNG"), "not a PNG"
    assert any(path.suffix == ".png" for path in vm.save_artifacts(tmp_path / "kept"))
