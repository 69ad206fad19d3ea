"""The console: nothing is lost, nothing is matched twice, every thread reads on its own."""

import re
import threading

import pytest

from pytest_maqet import GuestPanic, NotSupported, WaitTimeout


def say(vm, text: str) -> None:
    vm.console.send(text + "\n")


def test_the_mark_is_at_ready_and_start_sees_all(boot):
    vm = boot()
    with pytest.raises(WaitTimeout):
        vm.wait.console("guest ready", timeout=0.02)
    assert vm.wait.console("guest (ready)", since="start")[1] == "ready"


def test_the_cursor_moves_past_each_match(boot):
    vm = boot()
    for text in ("one", "two"):
        say(vm, text)
    vm.wait.console("echo: one")
    vm.wait.console("echo: two")
    with pytest.raises(WaitTimeout):
        vm.wait.console("echo: one", timeout=0.02)


def test_what_was_said_before_the_wait_is_seen(boot):
    vm = boot()
    say(vm, "early")
    vm.wait.until(lambda: "echo: early" in vm.console_log.read_text())
    vm.wait.console("echo: early", timeout=0.1)


def test_since_now_sees_only_what_comes(boot):
    vm = boot()
    say(vm, "past")
    vm.wait.console("echo: past")
    with pytest.raises(WaitTimeout):
        vm.wait.console("past", since="now", timeout=0.02)


def test_each_thread_has_its_own_cursor(boot):
    vm = boot()
    say(vm, "shared")
    vm.wait.console("echo: shared")
    found = []
    other = threading.Thread(target=lambda: found.append(vm.wait.console("echo: shared")))
    other.start()
    other.join(timeout=20)
    assert found, "another thread's wait did not begin at the mark"


def test_a_new_mark_hides_the_past(boot):
    vm = boot()
    say(vm, "past")
    vm.wait.console("echo: past")
    vm.set_mark()
    with pytest.raises(WaitTimeout):
        vm.wait.console("past", timeout=0.02)


def test_raw_keeps_carriage_returns(boot):
    vm = boot()
    assert vm.wait.console(r"guest ready\r\n", since="start", raw=True)
    with pytest.raises(WaitTimeout):
        vm.wait.console(r"guest ready\r\n", since="start", timeout=0.02)


def test_fail_pattern_ends_the_wait(boot):
    vm = boot()
    say(vm, "ERROR no disk")
    with pytest.raises(GuestPanic, match="no disk"):
        vm.wait.console("never", fail="ERROR .*")


def test_all_starts_from_one_cursor_and_moves_to_the_furthest_end(boot):
    vm = boot()
    say(vm, "first")
    say(vm, "second")
    values = vm.wait.all({"console": "echo: second"}, {"console": "echo: first"})
    assert [match[0] for match in values] == ["echo: second", "echo: first"]
    with pytest.raises(WaitTimeout):
        vm.wait.console("echo", timeout=0.02)


def test_all_names_what_did_not_hold(boot):
    vm = boot()
    say(vm, "first")
    with pytest.raises(WaitTimeout, match="/never/") as caught:
        vm.wait.all({"console": "echo: first"}, {"console": "never"}, timeout=0.1)
    assert "/echo: first/" not in str(caught.value).splitlines()[0], "what held is not to blame"


def test_a_wrong_pattern_is_the_callers_error(boot):
    with pytest.raises(re.error):
        boot().wait.console("(")


def test_an_unknown_console_is_named_with_those_there_are(boot):
    with pytest.raises(NotSupported, match=r"'aux'.*it has: main"):
        boot().wait.console("x", console="aux")


def test_an_unknown_condition_is_refused(boot):
    with pytest.raises(NotSupported, match="'moonphase'"):
        boot().wait.all(moonphase="full")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"console": {"regex": "x"}}, "takes pattern, fail, console, since, not regex"),
        ({"port": "http"}, "port as a number, not 'http'"),
        ({"event": {"data": {}}}, "needs 'name'"),
    ],
)
def test_conditions_take_what_they_take(boot, wrong, words):
    with pytest.raises(TypeError, match=words):
        boot().wait.all(wrong)


def test_all_knows_every_wait(boot):
    vm = boot()
    vm.powerdown()
    assert vm.wait.all(shutdown=None, event="SHUTDOWN")[0] == "guest-shutdown"
    with pytest.raises(TypeError, match=r"wait\.until"):
        vm.wait.all(lambda: True)


def test_until_returns_the_true_value_and_tells_the_last_one(boot):
    vm = boot()
    values = iter([0, None, "yes"])
    assert vm.wait.until(lambda: next(values)) == "yes"
    with pytest.raises(WaitTimeout, match=r"the moon[\s\S]*it returned 0"):
        vm.wait.until(lambda: 0, message="the moon", timeout=0.02)


def test_until_keeps_the_last_failed_assertion(boot):
    def check():
        raise AssertionError("3 != 4")

    with pytest.raises(WaitTimeout, match="3 != 4") as caught:
        boot().wait.until(check, timeout=0.02)
    assert isinstance(caught.value.__cause__, AssertionError)


def test_until_ends_when_qemu_dies(boot):
    vm = boot()
    vm.kill()
    with pytest.raises(Exception, match=r"killed by vm\.kill"):
        vm.wait.until(lambda: False, timeout=30)
