"""Checkpoints of a Linux guest: memory and disks come back together, and every way in still works."""

import os
import random
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_maqet import ChannelError, GuestPanic, MaqetError, QMPCommandError, WaitTimeout
from pytest_maqet.config import VmConfig
from pytest_maqet.machine import launch
from pytest_maqet.runs.run_directory import RunDirectory


@pytest.fixture(scope="module")
def guest(host):
    """With a disk, a forwarded port and a web server; every test begins at the checkpoint `fresh`."""
    vm = launch(
        VmConfig.model_validate(
            {
                "name": "linux",
                "image": "builtin:linux",
                "memory": "192M",
                "storage": [{"name": "data", "type": "qcow2", "size": 64 * 1024 * 1024}],
                "network": [{"user": {"forward": {"http": 80}}}],
            }
        ),
        host,
    )
    vm.run("mkdir /tmp/www; echo old >/tmp/www/index.html; httpd -p 80 -h /tmp/www")
    vm.wait.http(80)
    vm.checkpoint("fresh")
    yield vm
    vm.close()


@pytest.fixture
def linux(guest):
    guest.restore("fresh")
    guest.set_mark()
    return guest


def write(vm, text: str) -> None:
    """Into memory and onto the disk, for certain."""
    vm.run(f"echo {text} >/tmp/memory; echo {text} | dd of=/dev/vda bs=512 conv=sync 2>&-; sync")


def read(vm) -> list[str]:
    """From memory, and from the disk itself: what was cached of it is dropped."""
    vm.run("sync; echo 3 >/proc/sys/vm/drop_caches")
    return vm.run("cat /tmp/memory; dd if=/dev/vda bs=512 count=1 2>&- | tr -d '\\0'").stdout.split()


def test_memory_and_disk_come_back_together_in_any_order(linux):
    texts = ["one", "two", "three"]
    for text in texts:
        write(linux, text)
        linux.checkpoint(text)
    write(linux, "last")
    order = random.Random(7).choices(texts, k=10)
    for text in order:
        linux.restore(text)
        assert read(linux) == [text, text], f"after {order}"
        write(linux, "changed")


def test_a_replaced_checkpoint_is_the_new_state(linux):
    for text in ("first", "second"):
        write(linux, text)
        linux.checkpoint("same")
    write(linux, "third")
    linux.restore("same")
    assert read(linux) == ["second", "second"]


def test_process_and_forwarded_port_stay(linux):
    before = linux.pid, linux.url(80)
    linux.run("echo new >/tmp/www/index.html")
    assert linux.wait.http(80).text == "new\n"
    linux.restore("fresh")
    assert linux.wait.http(80).text == "old\n"
    assert urllib.request.urlopen(before[1], timeout=60).read() == b"old\n"
    assert (linux.pid, linux.url(80)) == before


def test_every_channel_works_after_a_restore(linux):
    for _ in range(2):
        assert linux.run("echo agent").stdout == "agent\n"
        assert linux.console.run("echo console").stdout == "console\n"
        linux.restore("fresh")
    assert linux.channel == "agent"


def test_after_a_panic(linux):
    linux.console.send("echo c >/proc/sysrq-trigger\n")
    assert isinstance(linux.wait.panic(timeout=60), GuestPanic)
    linux.restore("fresh")
    assert linux.run("cat /tmp/www/index.html").stdout == "old\n"
    assert linux.health() is None


def test_after_a_power_off(linux):
    linux.console.send("poweroff -f\n")
    linux.wait.shutdown(timeout=60)
    linux.restore("fresh")
    assert linux.run("cat /tmp/www/index.html").stdout == "old\n"
    assert linux.status == "running"


def test_the_console_after_a_restore(linux):
    linux.console.send("echo be''fore\n")
    linux.wait.console("before$")
    linux.restore("fresh")
    linux.console.send("echo be''fore\n")
    linux.wait.console("before$")
    assert linux.console_log.read_bytes().count(b"\nbefore\r") == 2, "the log lost a line"


def run_in_thread(call) -> tuple[threading.Thread, list[object]]:
    ends: list[object] = []

    def work() -> None:
        try:
            ends.append(call())
        except MaqetError as error:
            ends.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, ends


@pytest.mark.parametrize("over", ["agent", "console"])
def test_a_command_under_way_at_the_checkpoint(linux, over):
    run = linux.run if over == "agent" else linux.console.run
    thread, ends = run_in_thread(lambda: run("touch /tmp/begun; sleep 1000", timeout=60))
    other = linux.console.run if over == "agent" else linux.run
    linux.wait.until(lambda: other("test -f /tmp/begun", check=False).returncode == 0, timeout=60)
    linux.checkpoint("busy")
    for _ in range(2):
        linux.restore("busy")
        thread.join(timeout=60)
        assert [type(end) for end in ends] == [ChannelError], f"it ended with {ends}"
        assert "put back to a checkpoint" in str(ends[0])
        assert run("echo well").stdout == "well\n"
        assert run("ps | grep '[s]leep 1000'", check=False).returncode == 0, "the guest lost the command"


def test_a_transfer_under_way_at_the_checkpoint(linux):
    """The serial shell's terminal is in the middle of taking in a file."""
    data = os.urandom(400_000)
    thread, ends = run_in_thread(lambda: linux.console.run("wc -c", input=data, timeout=60))
    linux.wait.until(lambda: b"~mq" in linux.console_log.read_bytes()[-2000:], timeout=60)
    linux.checkpoint("half")
    linux.restore("half")
    thread.join(timeout=60)
    assert [type(end) for end in ends] == [ChannelError], f"it ended with {ends}"
    assert linux.console.run("wc -c", input=data[:5000]).stdout.strip() == "5000"


def test_a_process_of_a_later_time_is_no_more(linux):
    with linux.spawn("sleep 1000") as process:
        linux.restore("fresh")
        # Its id goes to somebody else now, who must not be ended in its place.
        pid = int(linux.run("sleep 2000 >/dev/null 2>&1 & echo $!").stdout)
        process._process.pid = pid
        process.kill()
        with pytest.raises(ChannelError, match="no longer knows"):
            process.wait()
    assert linux.run(["kill", "-0", str(pid)], check=False).returncode == 0


def test_a_checkpoint_that_is_not_done_in_time(linux):
    before = linux.checkpoints
    with pytest.raises(WaitTimeout):
        linux.checkpoint("late", timeout=0.001)
    assert linux.checkpoints == before
    assert linux.run("echo well").stdout == "well\n", "the guest did not go on"
    linux.checkpoint("late")
    linux.restore("late")


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A base directory on a file system that holds less than the guest's memory."""
    path = Path(f"/tmp/mq{os.getpid()}")  # short enough for sockets
    path.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        path.rmdir()
        pytest.skip("no file system can be mounted here")
    monkeypatch.setenv("MAQET_RUN_BASE", str(path))
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)
    path.rmdir()


def test_a_full_disk_is_told_and_the_guest_goes_on(small_disk, host):
    run = RunDirectory.create()
    lease = run.lease("main")
    config = VmConfig.model_validate({"name": "linux", "image": "builtin:linux", "memory": "160M"})
    vm = launch(config, replace(host, run=run, lease=lease.path))
    try:
        with pytest.raises(
            QMPCommandError, match=r"'a' could not be taken[\s\S]*is full[\s\S]*MAQET_RUN_BASE"
        ):
            vm.checkpoint("a")
        assert vm.checkpoints == ()
        assert not list(vm.workdir.glob("memory-*")), "what was written of it still fills the disk"
        assert vm.status == "running"
        assert vm.run("echo well").stdout == "well\n"
        used = sum(path.stat().st_blocks for path in small_disk.rglob("*") if path.is_file()) * 512
        assert used < 4_000_000, f"{used} bytes are still in use"
    finally:
        vm.close()
        lease.close()
        run.remove()
