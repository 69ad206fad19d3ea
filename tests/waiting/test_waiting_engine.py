"""The engine on a real console log, a real process and a real loop; the guest is this test's own writing."""

import asyncio
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pytest_maqet.deadline import Deadline, pauses
from pytest_maqet.errors import ChannelError, GuestPanic, QemuDied, WaitTimeout
from pytest_maqet.runs.vm_directory import VmDirectory
from pytest_maqet.waiting.engine import race, wait_for
from pytest_maqet.waiting.failures import Expectation
from pytest_maqet.waiting.pushed import ConsoleText, EventCame, GuestPanicked
from pytest_maqet.waiting.vitals import Vitals

PATTERNS = (("panic", r"Kernel panic"), ("oops", r"Oops: \d+"))


class Process:
    """What Vitals follows: a real child, known by its pidfd; its exit is written as a keeper writes it."""

    def __init__(self, directory: VmDirectory) -> None:
        self.directory = directory
        self._child = subprocess.Popen(["sleep", "60"])
        self.pid = self._child.pid
        self._pidfd = os.pidfd_open(self.pid)

    def fileno(self) -> int:
        return self._pidfd

    def end(self) -> None:
        self._child.kill()
        self.directory.exit_file.write_text(
            json.dumps({"code": None, "signal": 9, "errno": None, "cause": None})
        )

    def close(self) -> None:
        self._child.kill()
        self._child.wait()
        os.close(self._pidfd)


@pytest.fixture
def directory(tmp_path: Path) -> VmDirectory:
    found = VmDirectory(tmp_path)
    found.serial_log("main").touch()
    return found


def on_vitals(directory: VmDirectory, work):
    """Run `work(vitals, say, process)` on a loop of its own."""

    async def main():
        vitals = Vitals("web", {"main": directory.serial_log("main")}, PATTERNS, directory.stderr_log)
        process = Process(directory)
        vitals.follow(process)

        def say(text: str) -> None:
            with directory.serial_log("main").open("a") as log:
                log.write(text)

        try:
            return await work(vitals, say, process)
        finally:
            vitals.unfollow()
            process.close()

    return asyncio.run(main())


def text(vitals: Vitals, pattern: str, start: int = 0, **more) -> ConsoleText:
    return ConsoleText(vitals, vitals.console, re.compile(pattern, re.MULTILINE), start, **more)


def test_text_that_is_there_already_is_found_at_once(directory):
    directory.serial_log("main").write_text("boot\nguest ready\n")

    async def work(vitals, say, process):
        return await wait_for(vitals, text(vitals, "guest (ready)"), Deadline.after(5))

    assert on_vitals(directory, work)[1] == "ready"


def test_text_across_writes_is_found(directory):
    async def work(vitals, say, process):
        waiting = asyncio.ensure_future(wait_for(vitals, text(vitals, "guest ready"), Deadline.after(5)))
        for piece in ("gue", "st re", "ady", "\n"):
            await asyncio.sleep(0.02)
            say(piece)
        return (await waiting)[0]

    assert on_vitals(directory, work) == "guest ready"


def test_a_number_is_not_cut_where_the_output_happens_to_end(directory):
    async def work(vitals, say, process):
        waiting = asyncio.ensure_future(wait_for(vitals, text(vitals, r"port (\d+)"), Deadline.after(5)))
        say("port 80")
        await asyncio.sleep(0.002)
        say("80\n")
        return (await waiting)[1]

    assert on_vitals(directory, work) == "8080", "the wait was content with half a number"


def test_timeout_says_what_was_awaited_and_shows_the_console(directory):
    async def work(vitals, say, process):
        say("still booting\n")
        await wait_for(vitals, text(vitals, "login:"), Deadline.after(0.1))

    with pytest.raises(WaitTimeout) as caught:
        on_vitals(directory, work)
    message = str(caught.value)
    for part in ("web", "0.1 s", "/login:/", "| still booting"):
        assert part in message, f"the message lacks {part!r}:\n{message}"


def test_a_panic_ends_a_wait_at_once_with_its_line(directory):
    async def work(vitals, say, process):
        waiting = asyncio.ensure_future(wait_for(vitals, text(vitals, "login:"), Deadline.after(30)))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        say("Kernel panic - not syncing: Attempted to kill init!\n")
        with pytest.raises(GuestPanic, match="Attempted to kill init") as caught:
            await waiting
        assert time.monotonic() - began < 5, "the panic did not wake the wait"
        assert vitals.failures.unseen() is None, "a failure that a wait raised is seen"
        return caught.value

    error = on_vitals(directory, work)
    assert error.pattern == "panic"
    assert error.text.startswith("Kernel panic")


def test_death_ends_a_wait_with_how_it_ended(directory):
    async def work(vitals, say, process):
        waiting = asyncio.ensure_future(wait_for(vitals, text(vitals, "login:"), Deadline.after(30)))
        await asyncio.sleep(0.02)
        process.end()
        await waiting

    with pytest.raises(QemuDied, match="SIGKILL") as caught:
        on_vitals(directory, work)
    assert caught.value.signal == 9


def test_what_was_awaited_wins_over_a_failure_in_the_same_moment(directory):
    async def work(vitals, say, process):
        waiting = asyncio.ensure_future(wait_for(vitals, text(vitals, "reached"), Deadline.after(30)))
        await asyncio.sleep(0.02)
        say("reached\nKernel panic\n")
        await waiting
        return vitals.failures.unseen()

    assert on_vitals(directory, work) is not None, (
        "the panic that no wait raised must fail the test at its end"
    )


def test_reset_clears_a_panic_but_not_that_it_happened(directory):
    async def work(vitals, say, process):
        say("Kernel panic\n")
        vitals.read_consoles()
        assert vitals.failures.blocking() is not None
        vitals.on_event({"event": "RESET"})
        assert vitals.failures.blocking() is None, "a guest that starts anew is not in panic"
        assert vitals.failures.unseen() is not None, "nobody saw the panic"
        vitals.mark()
        return vitals.failures.unseen()

    assert on_vitals(directory, work) is None, "the next test is not to blame"


def test_a_reset_does_not_end_what_a_full_disk_has_paused(directory):
    full = {
        "node-name": "root",
        "action": "stop",
        "operation": "write",
        "nospace": True,
        "reason": "No space",
    }

    async def work(vitals, say, process):
        vitals.on_event({"event": "BLOCK_IO_ERROR", "data": full})
        vitals.on_event({"event": "RESET"})
        after_reset = vitals.failures.blocking()
        vitals.on_event({"event": "RESUME"})
        return after_reset, vitals.failures.blocking()

    after_reset, after_resume = on_vitals(directory, work)
    assert after_reset is not None, "the VM stands still, and waits would not say why"
    assert after_resume is None


def test_console_and_pvpanic_tell_one_panic(directory):
    async def work(vitals, say, process):
        expectation = Expectation(kind=GuestPanic)
        vitals.failures.expect(expectation)
        say("Kernel panic\n")
        vitals.on_event({"event": "GUEST_PANICKED", "data": {"action": "pause"}})
        vitals.failures.unexpect(expectation)
        vitals.on_event({"event": "GUEST_PANICKED", "data": {"action": "pause"}})
        return len(expectation.caught), vitals.failures.blocking(), vitals.failures.unseen()

    assert on_vitals(directory, work) == (1, None, None), "an expected panic came back under its other name"


def test_an_expectation_with_a_match_does_not_excuse_another_failure(directory):
    async def work(vitals, say, process):
        vitals.failures.expect(Expectation(kind=GuestPanic, match=re.compile("sysrq")))
        say("Oops: 17\n")
        vitals.read_consoles()
        return vitals.failures.blocking().name

    assert on_vitals(directory, work) == "oops"


def test_wait_for_panic_returns_it_and_excuses_it(directory):
    async def work(vitals, say, process):
        waiting = asyncio.ensure_future(wait_for(vitals, GuestPanicked(vitals), Deadline.after(5)))
        await asyncio.sleep(0.01)
        say("Kernel panic - x\n")
        error = await waiting
        return error, vitals.failures.unseen(), vitals.failures.blocking()

    error, unseen, blocking = on_vitals(directory, work)
    assert isinstance(error, GuestPanic)
    assert unseen is blocking is None


def test_fail_pattern_that_comes_first_ends_the_wait(directory):
    async def work(vitals, say, process):
        say("error: no disk\nlogin: \n")
        condition = text(vitals, "login:", fail=re.compile("error: .*"))
        await wait_for(vitals, condition, Deadline.after(5))

    with pytest.raises(GuestPanic, match="no disk"):
        on_vitals(directory, work)


def test_fail_pattern_that_comes_later_does_not(directory):
    async def work(vitals, say, process):
        say("login: \nerror: no disk\n")
        condition = text(vitals, "login:", fail=re.compile("error: .*"))
        return await wait_for(vitals, condition, Deadline.after(5))

    assert on_vitals(directory, work)[0] == "login:"


def test_event_wait_names_the_events_that_did_come(directory):
    async def work(vitals, say, process):
        vitals.on_event({"event": "STOP"})
        await wait_for(vitals, EventCame(vitals, "RESUME", {}), Deadline.after(0.05))

    with pytest.raises(WaitTimeout, match="events not taken: STOP"):
        on_vitals(directory, work)


def test_an_error_of_the_work_itself_is_raised(directory):
    async def broken():
        raise ValueError("mine")

    async def work(vitals, say, process):
        await race(vitals, broken(), Deadline.after(5))

    with pytest.raises(ValueError, match="mine"):
        on_vitals(directory, work)


def test_a_lost_connection_is_told_as_the_death_behind_it_although_that_is_known_later(directory):
    async def connection() -> None:
        raise ChannelError("the connection was lost")

    async def work(vitals, say, process):
        os.kill(process.pid, signal.SIGKILL)
        asyncio.get_running_loop().call_later(0.3, process.end)  # as a keeper on a busy machine
        await race(vitals, connection(), Deadline.after(5))

    with pytest.raises(QemuDied, match="SIGKILL"):
        on_vitals(directory, work)


def test_deadline_speaks_of_its_scale():
    assert str(Deadline.after(5, 8)) == "40 s (5 s × 8)"
    assert str(Deadline.after(5)) == "5 s"
    with pytest.raises(ValueError, match="negative"):
        Deadline.after(-1)


def test_pauses_grow_and_end_at_the_deadline():
    deadline = Deadline.after(0.2)
    seen = []
    for pause in pauses(deadline):
        seen.append(pause)
        time.sleep(pause)
    assert seen[0] < 0.01, "the first look must come soon"
    assert max(seen[: len(seen) // 2]) <= max(seen), f"the pauses do not grow: {seen}"
    assert deadline.expired
    assert seen[-1] == 0, "there is no look after the deadline"
    assert list(pauses(deadline)) == [0], "nobody looks where the time was over before"
