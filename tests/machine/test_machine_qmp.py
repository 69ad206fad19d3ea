"""QMP through the handle."""

import contextlib
import logging
import os
import signal
import socket
import threading
import time

import pytest

from pytest_maqet import QemuDied, QMPCommandError, WaitTimeout
from pytest_maqet.runs.lock_holders import lock_holder


def test_execute_returns_qemus_value(boot):
    assert boot().qmp.execute("query-status")["running"] is True


def test_underscores_stand_for_dashes(boot):
    text = boot().qmp.execute("human-monitor-command", command_line="info status")
    assert "running" in text


def test_a_refused_command_has_class_and_description(boot):
    with pytest.raises(QMPCommandError, match="no-such-command") as caught:
        boot().qmp.execute("no-such-command", some_argument=1)
    assert caught.value.error_class == "CommandNotFound"
    assert caught.value.command == "no-such-command"


def test_schema_knows_query_status(boot):
    assert any(entry.get("name") == "query-status" for entry in boot().qmp.schema())


def test_event_stream_sees_events_of_its_block_and_leaves_the_mailbox_alone(boot):
    vm = boot()
    with vm.qmp.events("STOP", "RESUME") as stream:
        vm.pause()
        vm.resume()
        assert [stream.get(5)["event"], stream.get(5)["event"]] == ["STOP", "RESUME"]
        with pytest.raises(WaitTimeout, match="STOP, RESUME"):
            stream.get(0.02)
    vm.wait.event("STOP", timeout=1)


def test_an_event_stream_goes_on_over_a_restart(boot):
    vm = boot()
    with vm.qmp.events("RESET") as stream:
        vm.stop()
        vm.start()
        vm.reset()
        assert stream.get(5)["data"]["reason"] == "host-qmp-system-reset"


def test_an_event_that_came_before_its_wait_is_found(boot):
    vm = boot()
    vm.reset()
    vm.qmp.execute("query-status")
    assert vm.wait.event("RESET", timeout=5, guest=False)["data"]["reason"] == "host-qmp-system-reset"


def test_a_second_monitor_is_free_for_a_person(boot):
    vm = boot()
    with socket.socket(socket.AF_UNIX) as person:
        person.settimeout(10)
        person.connect(str(vm.workdir / "qmp1.sock"))
        assert b'"QMP"' in person.recv(4096), "the second monitor did not greet"


def test_a_command_in_flight_ends_with_qemus_death(boot):
    vm = boot()
    os.kill(vm.pid, signal.SIGSTOP)
    try:
        with pytest.raises(WaitTimeout, match="query-status"):
            vm.qmp.execute("query-status", timeout=0.05)
    finally:
        os.kill(vm.pid, signal.SIGKILL)
    with pytest.raises(QemuDied):
        vm.qmp.execute("query-status")


def test_the_end_of_qemu_makes_no_noise_in_the_log(boot, caplog):
    with caplog.at_level(logging.DEBUG):
        vm = boot()
        vm.qmp.execute("quit")
        vm.wait.exit()
        vm.close()
        other = boot()
        other.kill()
        other.close()
    noise = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not noise, f"the user's log shows: {[record.getMessage() for record in noise]}"


def test_a_command_in_the_moment_of_qemus_death_tells_of_that(boot):
    vm = boot()
    keeper = lock_holder(vm.life.directory.keeper_lock)
    assert keeper is not None

    def go_on() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(keeper, signal.SIGCONT)

    os.kill(keeper, signal.SIGSTOP)  # so that nobody can know yet how QEMU has ended
    try:
        os.kill(vm.pid, signal.SIGKILL)
        threading.Timer(0.3, go_on).start()
        end = time.monotonic() + 10
        while vm.life._monitor.connected:
            assert time.monotonic() < end, "the session outlives its QEMU"
            time.sleep(0.005)
        with pytest.raises(QemuDied, match="SIGKILL"):
            vm.qmp.execute("query-status")
    finally:
        go_on()
