"""The nursery that keepers are forked from: what it passes on, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from run_processes import SLEEP, Watched, eventually, keeper_pid

from pytest_maqet.runs.nursery import end_nursery, living_nursery
from pytest_maqet.runs.process import QemuProcess

Launch = Callable[..., QemuProcess]

#: Another process that has a nursery and a VM, and prints both pids.
OWNER = """
import os, sys, time
from pytest_maqet.runs.nursery import living_nursery
from pytest_maqet.runs.process import QemuProcess
from pytest_maqet.runs.run_directory import RunDirectory
run = RunDirectory.create("other")
lease = run.lease("main")
vm = QemuProcess.launch(["/bin/sleep", "300"], run.new_vm_directory("vm"), lease.path)
print(living_nursery().pid, vm.pid, flush=True)
if "fork" in sys.argv and os.fork() == 0:
    for fd in (0, 1, 2):
        os.close(fd)
    time.sleep(20)
    os._exit(0)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_nursery() -> Iterator[None]:
    """Each test begins and ends without one."""
    end_nursery()
    yield
    end_nursery()


def watched(pid: int) -> Watched:
    return Watched(pid, os.pidfd_open(pid))


def assert_only(process: QemuProcess, passed: list[int]) -> None:
    """That nothing but the standard streams and `passed` is open in it (the dynamic linker opens files for a
    moment)."""

    def wrong() -> set[int]:
        found = {int(entry.name) for entry in Path(f"/proc/{process.pid}/fd").iterdir()}
        return found ^ {0, 1, 2, *passed}

    assert eventually(lambda: not wrong()), f"missing, or inherited on top: {sorted(wrong())}"


def test_keepers_have_the_same_parent_and_outlive_it(launch: Launch) -> None:
    first, second = launch(), launch()
    nursery = watched(living_nursery().pid)
    keepers = [keeper_pid(process.directory) for process in (first, second)]
    parents = [int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in keepers]
    assert parents == [nursery.pid, nursery.pid], f"keepers {keepers} are not the nursery's children"
    end_nursery()
    assert nursery.gone(), "the nursery does not end"
    assert watched(first.pid).alive(), "a VM ended with the nursery"
    assert first.dismiss(5) is not None
    assert second.dismiss(5) is not None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSTOP])
def test_one_that_was_hit_by_a_signal_is_replaced(launch: Launch, number: signal.Signals) -> None:
    living = launch()
    hit = watched(living_nursery().pid)
    os.kill(hit.pid, number)
    after = launch()
    assert watched(after.pid).alive(), "no VM could be started any more"
    assert watched(living.pid).alive(0), "a VM from before ended with the nursery"
    assert living_nursery().pid != hit.pid, "the nursery that was hit is still used"
    assert hit.gone(), "the nursery that was hit is still there"


def test_one_that_dies_in_the_middle_of_a_launch_is_replaced(launch: Launch) -> None:
    # Stopped first, so that it is certain that the job is only in its socket when it dies.
    hit = living_nursery()
    launch()
    os.kill(hit.pid, signal.SIGSTOP)
    process = launch()
    assert watched(process.pid).alive(), "the launch did not survive its nursery"
    assert living_nursery() is not hit


def test_half_a_job_of_an_interrupted_launch_is_no_part_of_the_next(launch: Launch) -> None:
    class Interrupt(Exception):
        """What pytest-timeout raises from a signal's handler."""

    def interrupt(*_: object) -> None:
        raise Interrupt

    launch()
    hit = living_nursery()
    os.kill(hit.pid, signal.SIGSTOP)  # so that its socket is full in the middle of the job
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(Interrupt):
            launch("/bin/sleep", "300", *["0" * 100_000] * 15)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not hit.alive, "it is still used, and waits for the rest of a job that never comes"
    assert launch().exit() is None


@pytest.mark.parametrize("arguments", [[], ["fork"]], ids=["alone", "with a forked child that lives on"])
def test_it_ends_with_its_process(base: Path, arguments: list[str]) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "MAQET_RUN_BASE": str(base)},
    )
    assert owner.stdin is not None
    assert owner.stdout is not None
    nursery, qemu = (watched(int(pid)) for pid in owner.stdout.readline().split())
    assert nursery.alive(0.1)
    owner.kill()
    owner.wait()
    owner.stdin.close()
    owner.stdout.close()
    assert nursery.gone(2), "the nursery is still there after its process was killed"
    assert qemu.gone(2), "QEMU is still there after its owner was killed"


def test_descriptors_keep_their_numbers_whatever_the_nurserys_are(launch: Launch) -> None:
    """Low numbers are those that the nursery and the keeper have in use themselves."""
    with socket.socket(socket.AF_UNIX) as given:
        numbers = [fd for fd in range(3, 60) if not os.path.exists(f"/proc/self/fd/{fd}")][:20]  # noqa: PTH110
        files = []
        for number in reversed(numbers):
            os.dup2(given.fileno(), number)
        try:
            for number in numbers:
                path = Path(f"/proc/self/fd/{number}")
                reader = os.memfd_create(f"number-{number}")
                os.dup2(reader, number)
                os.close(reader)
                files.append(str(path.readlink()))
            process = launch(pass_fds=[*reversed(numbers)])
        finally:
            for number in numbers:
                os.close(number)
    found = {fd: str(Path(f"/proc/{process.pid}/fd/{fd}").readlink()) for fd in numbers}
    assert found == dict(zip(numbers, files, strict=True)), "QEMU has other files behind its numbers"
    assert_only(process, numbers)


def test_more_descriptors_than_fit_in_one_message(launch: Launch) -> None:
    null = [os.open("/dev/null", os.O_RDONLY) for _ in range(300)]
    try:
        process = launch(pass_fds=null)
        assert_only(process, null)
    finally:
        for fd in null:
            os.close(fd)


def test_a_job_larger_than_the_sockets_buffer(launch: Launch) -> None:
    argv = ["/bin/sleep", "300", *["0" * 100_000] * 15]
    process = launch(*argv)
    told = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    assert len(told) == sum(len(word) + 1 for word in argv), "QEMU's command line was cut"


def test_launches_from_many_threads_go_to_the_right_vms(launch: Launch) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as threads:
        processes = list(threads.map(lambda number: launch("/bin/sleep", str(300 + number)), range(16)))
    found = [Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")[1] for process in processes]
    assert found == [str(300 + number).encode() for number in range(16)]


def test_it_says_why_qemu_could_not_be_executed_and_goes_on(launch: Launch) -> None:
    from pytest_maqet.errors import StartError

    with pytest.raises(StartError, match="No such file or directory"):
        launch("/no/such/qemu")
    before = living_nursery().pid
    assert eventually(lambda: launch(*SLEEP).exit() is None)
    assert living_nursery().pid == before, "a failed start cost the nursery its life"
