"""Guests that are frozen or busy, agents that have gone silent, and waits that are part of other waits."""

import time

import pytest

from pytest_maqet import ChannelError, CommandTimeout, GuestPanic, MaqetError, QemuDied, WaitTimeout
from pytest_maqet.runs import bounded_log

#: Boot sectors: `cli; hlt` for ever, and a jump to itself.
FROZEN = b"\xfa\xf4\xeb\xfc"
SPINNING = b"\xfa\xeb\xfe"


def boot_sector(path, code: bytes):
    path.write_bytes(code.ljust(510, b"\0") + b"\x55\xaa" + bytes(0x100000 - 512))
    return path


@pytest.fixture
def guest(boot, tmp_path):
    return lambda code: boot(boot_sector(tmp_path / "guest.img", code), ready=[], memory="16M")


def test_a_frozen_guest_is_told_by_the_processor_time_it_did_not_use(guest):
    vm = guest(FROZEN)
    time.sleep(1)  # the firmware, which is busy
    with pytest.raises(
        WaitTimeout, match=r"used 0\.\d s of processor time in .*: its guest is idle or frozen"
    ):
        vm.wait.console("login:", timeout=0.2)


def test_a_guest_in_a_loop_is_told_by_the_processor_time_it_used(guest):
    vm = guest(SPINNING)
    with pytest.raises(WaitTimeout, match=r"used \d+\.\d s of processor time in \d+\.\d s"):
        vm.wait.console("login:", timeout=0.1)  # how much depends on who else uses this machine


def test_a_frozen_guest_is_ended_all_the_same(guest):
    vm = guest(FROZEN)
    vm.stop(timeout=0.05)
    assert vm.status == "stopped"


def test_a_paused_vm_is_named_as_the_cause(boot):
    vm = boot()
    vm.pause()
    with pytest.raises(WaitTimeout, match=r"the VM is paused: .* until vm\.resume\(\)"):
        vm.wait.console("never", timeout=0.02)
    vm.resume()
    with pytest.raises(WaitTimeout) as caught:
        vm.wait.console("never", timeout=0.02)
    assert "paused" not in str(caught.value)


def test_a_guest_that_has_powered_off_is_named_as_the_cause(boot):
    vm = boot()
    vm.console.send("poweroff\n")
    vm.wait.shutdown()
    with pytest.raises(WaitTimeout, match=r"the guest has powered off \(guest-shutdown\)"):
        vm.wait.console("never", timeout=0.02)


def test_an_agent_that_is_stopped_in_the_guest(marked_linux):
    vm = marked_linux
    vm.run("true")  # so that the agent is the channel: else the console would be taken instead
    vm.console.run("kill -STOP $(pidof qemu-ga) $(pidof maqet-exec)")
    for call in (vm.run, vm.spawn, vm.wait.succeeds):
        with pytest.raises((ChannelError, CommandTimeout, WaitTimeout), match=r"did not start|waited"):
            call("true", timeout=0.05)
    with pytest.raises(WaitTimeout, match="the guest agent did not answer"):
        vm.wait.agent(timeout=0.05)
    vm.console.run("kill -CONT $(pidof qemu-ga) $(pidof maqet-exec)")
    assert vm.run("echo again").stdout == "again\n"


def test_endless_output_of_a_command_ends_with_its_time(marked_linux):
    marked_linux.run("true")
    with pytest.raises(CommandTimeout, match="ended in the guest") as caught:
        marked_linux.run("yes", timeout=0.2)
    assert len(caught.value.stdout) <= 16 * 1024 * 1024
    assert len(str(caught.value)) < 10_000
    assert marked_linux.run("echo fine").stdout == "fine\n"


def test_a_guest_that_floods_its_console(boot, monkeypatch, tmp_path):
    """QEMU appends to a log with a hole in it as to any other."""
    # Small sizes, for an emulated serial port makes 50 KB/s; the real ones are in tests/waiting.
    for name, size in (("HEAD", 16), ("TAIL", 32), ("STEP", 16)):
        monkeypatch.setattr(bounded_log, name, size * 1024)
    vm = boot()
    vm.console.send("flood 9000\n")
    vm.wait.console("flood 0000", timeout=60)
    found = vm.console_log.stat()
    assert found.st_size > 100_000
    assert found.st_blocks * 512 <= 80 * 1024, "the log was not kept short"
    vm.console.send("hello\n")
    vm.wait.console("echo: hello", timeout=10)
    assert "bytes cut" not in vm.console.text(), "what was read as it came is still known"
    kept = next(path for path in vm.save_artifacts(tmp_path) if "console" in path.name).read_text()
    assert "maqet nano: guest ready" in kept
    assert "bytes cut …]" in kept
    assert kept.rstrip().endswith("echo: hello")


# -- a wait under a wait -----------------------------------------------------------------------------------


def test_an_inner_wait_ends_with_the_outer_one(boot):
    vm = boot()
    began = time.monotonic()
    with pytest.raises(WaitTimeout, match="the whole") as caught:
        vm.wait.until(
            lambda: vm.wait.until(lambda: vm.wait.console("never", timeout=900), timeout=900),
            message="the whole",
            timeout=0.05,
        )
    assert time.monotonic() - began < 60, "the inner wait took its own 900 s × 8"
    assert isinstance(caught.value.__cause__, WaitTimeout), "what it waited for last is lost"
    with pytest.raises(WaitTimeout, match=r"waited 0\.08 s \(0\.01 s × 8\)"):
        vm.wait.console("never", timeout=0.01)


def test_an_inner_wait_that_is_shorter_keeps_its_own_time(boot):
    vm = boot()
    looks = []

    def look():
        looks.append(1)
        with pytest.raises(WaitTimeout):
            vm.wait.console("never", timeout=0.01)
        return len(looks) == 3

    vm.wait.until(look, timeout=60)


def test_expecting_inside_expecting(boot):
    vm = boot()
    with vm.expecting(QemuDied) as death:
        with vm.expecting(GuestPanic) as panic:
            vm.console.send("panic\n")
        assert isinstance(panic.value, GuestPanic)
        vm.life.process.kill()
    assert isinstance(death.value, QemuDied)


def test_the_time_to_wait_for_an_expected_failure_begins_at_the_end_of_the_block(boot):
    vm = boot()
    with vm.expecting(GuestPanic, timeout=0.1):
        time.sleep(0.9)  # 0.1 s × 8 under TCG are over
        vm.console.send("panic\n")


def test_a_call_on_the_thread_that_serves_it_is_refused(boot):
    """An event's listener or a hook that blocked there would wait for itself."""
    vm = boot()
    refused = []

    def listener(_event) -> None:
        for call in (lambda: vm.status, lambda: vm.wait.console("never"), vm.stop):
            try:
                call()
            except MaqetError as error:
                refused.append(str(error))

    end = vm.call_on_loop(vm.life.vitals.mailbox.listen, listener)
    vm.pause()
    vm.call_on_loop(end)
    assert len(refused) == 3
    assert "on the thread that would have to serve it" in refused[0]
    vm.resume()
    assert vm.status == "running", "a refused call has left something behind"
