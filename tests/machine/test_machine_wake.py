"""A real guest is woken: its clock set, its random numbers reseeded."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_maqet import VirtualMachine
from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError
from pytest_maqet.guest.wake_port import WakeAnswer, WakePort, new_seed
from pytest_maqet.guest.wake_script import wake_answer, wake_command

DONE = WakeAnswer(clock=None, reseed=None)
HOUR = 3600


class Waker:
    """The blocking side of a `WakePort`."""

    def __init__(self, vm: VirtualMachine) -> None:
        self.vm = vm
        self.port = WakePort(vm.life.directory.wake_socket, vm.name)

    def wake(self, seed: bytes | None = None, now: float | None = None, time: float = 60) -> WakeAnswer:
        return self.vm.on_loop(self.port.wake(Deadline(time), seed=seed, now=now))

    def close(self) -> None:
        self.vm.on_loop(self.port.close())

    def clock_behind(self) -> float:
        """Seconds that the guest's clock is behind this host's."""
        return time.time() - int(self.vm.run("date +%s").stdout)

    def send(self, data: bytes) -> None:
        """As a client that is no `WakePort`, and gone at once."""

        async def send() -> None:
            _, writer = await asyncio.open_unix_connection(self.port.path)
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0.05)  # what is not read when the client goes is dropped
            writer.close()
            await writer.wait_closed()

        self.vm.on_loop(send())


@pytest.fixture
def waker(marked_linux: VirtualMachine) -> Iterator[Waker]:
    made = Waker(marked_linux)
    yield made
    made.wake()
    made.close()


def test_somebody_listens_in_the_guest_when_it_is_ready(waker: Waker) -> None:
    assert waker.vm.life.vitals.wake_listens
    event = waker.vm.wait.event("VSERPORT_CHANGE", since="start", id="wake-port")
    assert event["data"] == {"open": True, "id": "wake-port"}


def test_the_clock_is_set_and_set_right_again(waker: Waker) -> None:
    assert waker.wake(now=time.time() + HOUR) == DONE
    assert -HOUR - 10 < waker.clock_behind() < -HOUR + 60, "the clock was not put ahead by an hour"
    assert waker.wake() == DONE
    assert -10 < waker.clock_behind() < 60, "the clock was not put right"


def test_reseeding_is_done(waker: Waker) -> None:
    assert waker.wake(new_seed()) == DONE


def test_a_clock_that_cannot_be_is_refused_in_words(waker: Waker) -> None:
    assert waker.wake(new_seed(), now=-5.0) == WakeAnswer(clock="EINVAL (Invalid argument)", reseed=None)


def test_a_client_goes_and_another_one_comes(waker: Waker) -> None:
    for _ in range(5):
        assert waker.wake() == DONE
        waker.close()


@pytest.mark.parametrize("garbage", [b"hello", b"MQ", b"MQW1 and then nothing more", b"\0" * 5000])
def test_garbage_does_no_harm(waker: Waker, garbage: bytes) -> None:
    waker.send(garbage)
    assert waker.wake(new_seed()) == DONE


def test_a_guest_that_stands_still_answers_when_it_runs(waker: Waker) -> None:
    waker.vm.pause()
    with pytest.raises(ChannelError, match="nobody in the guest answered on the wake port"):
        waker.wake(time=0.2)
    with contextlib.ExitStack() as stack:
        stack.callback(waker.vm.resume)
        waker.vm.on_loop(waker.port.connect(Deadline(60)))
    assert waker.wake() == DONE, "the answer to what came before was taken for this one's"


def test_it_costs_nothing_while_nobody_is_connected(waker: Waker) -> None:
    waker.wake()
    waker.close()
    used = "awk '{print $14 + $15}' /proc/$(pidof maqet-wake)/stat"
    before = int(waker.vm.run(used).stdout)
    time.sleep(1)
    ticks = int(waker.vm.run(used).stdout) - before
    assert ticks <= 10, f"maqet-wake used {ticks} hundredths of a second of CPU time while it had no host"


@pytest.mark.parametrize("channel", ["agent", "console"])
def test_without_the_port_a_command_does_it(waker: Waker, channel: str) -> None:
    run = waker.vm.run if channel == "agent" else waker.vm.console.run
    command, data = wake_command(now=time.time() + HOUR, seed=new_seed())
    done = run(command, input=data)
    assert done.stdout == "clock=errno:0 reseed=errno:0\n"
    assert wake_answer(done.stdout) == DONE
    assert -HOUR - 10 < waker.clock_behind() < -HOUR + 60, "the clock was not put ahead by an hour"
    command, data = wake_command(now=time.time(), seed=None)
    assert wake_answer(run(command, input=data).stdout) == DONE
    assert -10 < waker.clock_behind() < 60, "the clock was not put right"


def test_a_guest_with_busybox_only_has_its_clock_set(waker: Waker) -> None:
    command, data = wake_command(now=time.time() + HOUR, seed=new_seed())
    done = waker.vm.run(command, input=data, env={"PATH": "/bin:/usr/bin"})
    assert done.stdout == "clock=done reseed=none\n"
    assert -HOUR - 10 < waker.clock_behind() < -HOUR + 60, "the clock was not put ahead by an hour"


def _job(vm: VirtualMachine, command: str) -> None:
    """Run one of QEMU's snapshot jobs to its end."""
    vm.qmp.execute(command, job_id="job", tag="frozen", vmstate="vmstate", devices=["vmstate"])

    def job() -> dict[str, str]:
        (found,) = vm.qmp.execute("query-jobs")
        return dict(found)

    vm.wait.until(lambda: job()["status"] == "concluded", message=f"{command} ends", timeout=60)
    assert "error" not in job(), f"{command}: {job()['error']}"
    vm.qmp.execute("job-dismiss", id="job")


class Frozen:
    """A guest that was frozen while a shell waited for a line; then it prints a random number."""

    UUID = r"^[0-9a-f]{8}-[0-9a-f-]{27}$"

    def __init__(self, vm: VirtualMachine, file: Path) -> None:
        self.waker = Waker(vm)
        self.vm = vm
        file_node = {"driver": "file", "filename": str(file)}
        vm.qmp.execute("blockdev-add", driver="qcow2", node_name="vmstate", file=file_node)
        vm.console.send("echo waiting; read line; cat /proc/sys/kernel/random/uuid\n")
        vm.wait.console("^waiting$")
        # Soon after the boot the kernel reseeds by itself every few seconds; the next time is then far.
        self.waker.wake(new_seed())
        self.waker.close()
        vm.pause()
        _job(vm, "snapshot-save")

    def thaw(self) -> None:
        """Back to that moment, still paused, the wake port connected."""
        if self.vm.status == "running":
            self.vm.pause()
        _job(self.vm, "snapshot-load")
        self.vm.on_loop(self.waker.port.connect(Deadline(60)))

    def random(self) -> str:
        """What it draws."""
        self.vm.console.send("\n")
        if self.vm.status != "running":
            self.vm.resume()
        return str(self.vm.wait.console(self.UUID)[0])


@pytest.fixture
def frozen(boot: Callable[..., VirtualMachine], tmp_path: Path) -> Iterator[Frozen]:
    file = tmp_path / "vmstate.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", file, "1G"], check=True, timeout=60)
    made = Frozen(boot("builtin:linux"), file)
    yield made
    made.waker.close()


def test_only_a_reseed_makes_a_resumed_guest_draw_other_random_numbers(frozen: Frozen) -> None:
    for _ in range(6):  # on a busy host the kernel may take in something of its own meanwhile
        drawn = []
        for _ in range(2):
            frozen.thaw()
            drawn.append(frozen.random())
        if drawn[0] == drawn[1]:
            break
    assert drawn[0] == drawn[1], "the guest draws other numbers by itself, so this test proves nothing"
    for _ in range(2):
        frozen.thaw()
        frozen.vm.resume()
        assert frozen.waker.wake(new_seed()) == DONE
        drawn.append(frozen.random())
    assert len({*drawn}) == 3, f"resumed guests drew the same random numbers: {drawn}"
