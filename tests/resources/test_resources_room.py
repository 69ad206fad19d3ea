"""Memory for VMs, promised across the workers of a run: real VMs, a manager for each worker."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from resource_rig import MIB, NANO, acquired, eventually, wanted

from pytest_maqet import host_memory
from pytest_maqet.errors import NoRoom
from pytest_maqet.host_memory import HostMemory
from pytest_maqet.management import room
from pytest_maqet.runs import promises
from pytest_maqet.runs.promises import Books
from pytest_maqet.worker_count import REASON, capped

BOOT = {**NANO, "start": "boot"}


def kinds(manager) -> list[str]:
    """What the books say now."""
    with Books(manager.run_dir).opened() as entries:
        return sorted(entry.kind for entry in entries)


def test_a_vm_larger_than_the_limit_is_refused_at_once(share, leftovers):
    manager = share({"big": {**BOOT, "memory": "64M"}}, max_memory=48 * MIB)
    with pytest.raises(
        NoRoom, match=r"big: there is no memory for it: 64 MiB wanted, 48 MiB left of the 48 MiB"
    ):
        acquired(manager, "big")
    manager.close()
    leftovers.check()


def test_a_start_waits_until_another_worker_gives_memory_back(share, in_thread, leftovers):
    first, second = (share({"nano": BOOT}, max_memory=24 * MIB) for _ in range(2))
    vm = acquired(first)
    got: list[str] = []
    in_thread(lambda: got.append(acquired(second).name))
    assert eventually(lambda: kinds(first) == ["vm", "wish"]), "the second one does not wait"
    assert got == []
    first.stop(vm)
    assert eventually(lambda: got == ["nano"]), "the memory was given back, and nobody took it"
    second.close()
    second._run.directory.close()  # as the end of a worker's process does
    first.close()
    leftovers.check()


def test_two_that_hold_vms_and_want_more_do_not_wait_for_each_other(share, in_thread):
    limit = 32 * MIB
    first, second = (share({"nano": BOOT}, max_memory=limit) for _ in range(2))
    acquired(first, test="a")
    second_vm = acquired(second, test="b")
    got: list[str] = []
    in_thread(lambda: got.append(acquired(first, test="c").name))
    assert eventually(lambda: "wish" in kinds(first))
    with pytest.raises(NoRoom, match="wait for memory themselves") as caught:
        acquired(second, test="d")
    assert "nano: 16 MiB (gw0, " in str(caught.value), "it does not say who has it"
    second.stop(second_vm)
    assert eventually(lambda: got == ["nano"]), "the one that waits goes on when the other has ended"


def test_a_process_does_not_wait_for_itself(share):
    manager = share({"nano": BOOT}, max_memory=24 * MIB)
    vm = acquired(manager, test="a")
    with pytest.raises(NoRoom, match="this process has VMs of its own, and nobody else has any"):
        acquired(manager, test="b")
    manager.stop(vm)
    acquired(manager, test="b")  # nor is the refusal remembered as the VM's own failure


def test_vms_of_one_test_get_memory_at_once_or_not_at_all(share):
    manager = share({"a": BOOT, "b": BOOT}, max_memory=24 * MIB)
    both = [wanted(manager, "a"), wanted(manager, "b")]
    manager.acquire_ahead(both)
    for one in both:
        with pytest.raises(NoRoom, match="a and b: there is no memory for all of them at once"):
            manager.acquire(one)
    assert kinds(manager) == []


def test_a_promise_ends_with_a_killed_worker(share, tmp_path, leftovers):
    manager = share({"nano": BOOT}, max_memory=24 * MIB)
    script = textwrap.dedent(
        """
        import sys, time
        sys.path.insert(0, sys.argv[1])
        from pathlib import Path
        from resource_rig import Quiet, acquired
        from pytest_maqet.config import load_config
        from pytest_maqet.management.manager import Manager
        from pytest_maqet.settings import Settings
        config = load_config([Path(sys.argv[2])])
        manager = Manager(
            config, Settings(max_memory=24 << 20), worker="gw9", run_id=sys.argv[3], listener=Quiet()
        )
        acquired(manager)
        print("up", flush=True)
        time.sleep(600)
        """
    )
    arguments = [str(Path(__file__).parent), str(tmp_path / "maqet.yaml"), manager.run_dir.name]
    arguments = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "up\n"
        assert kinds(manager) == ["vm"]
        worker.send_signal(signal.SIGKILL)
    assert acquired(manager).status == "running", "a dead worker's memory is promised for ever"
    manager.close()
    leftovers.check()


def test_a_stopped_vm_keeps_its_memory_and_starts_again(share):
    first, second = (share({"nano": BOOT}, max_memory=24 * MIB) for _ in range(2))
    vm = acquired(first)
    vm.kill()
    assert kinds(first) == ["vm"], "another worker could take what the VM needs when it starts again"
    vm.start()
    assert vm.status == "running"
    assert second.stats()["starts"] == []


def test_a_vm_that_grows_needs_room_for_that(share):
    manager = share({"nano": BOOT}, max_memory=24 * MIB)
    vm = acquired(manager)
    vm.kill()
    with pytest.raises(NoRoom, match="nano: there is no memory for it: 32 MiB wanted"):
        vm.start(memory="32M")
    vm.start(memory="24M")
    assert vm.config.memory == 24 * MIB


def test_a_vm_of_all_workers_counts_once_and_until_the_end(share):
    vms = {"hub": {**BOOT, "scope": "run"}, "nano": BOOT}
    first, second = (share(vms, max_memory=40 * MIB) for _ in range(2))
    acquired(first, "hub")
    acquired(second, "hub")
    assert kinds(first) == ["run"]
    with pytest.raises(NoRoom, match=r"hub: 16 MiB .*for the whole run"):
        acquired(second, memory="32M")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one processor there are no spares")
def test_spares_are_the_first_to_go(share, in_thread):
    first, second = (share({"nano": NANO}, max_memory=40 * MIB) for _ in range(2))
    acquired(first, test="a")
    first.want_next([wanted(first, test="b")])
    assert eventually(lambda: kinds(first) == ["spare", "vm"]), "there is no spare"
    assert acquired(second, test="c").status == "running", "a VM that is wanted waits for one that is not"
    first.end_scope(wanted(first, test="a").scope)
    vm = acquired(first, test="b")
    assert vm.status == "running"
    assert not first.stats()["starts"][-1]["pooled"], "the spare had to go"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one processor there are no spares")
@pytest.mark.parametrize("own", [True, False], ids=["own", "other"])
def test_a_finished_spare_goes_although_its_owner_does_nothing(share, in_thread, own):
    first, second = (share({"nano": NANO, "big": BOOT}, max_memory=40 * MIB) for _ in range(2))
    acquired(first, test="a")
    first.want_next([wanted(first, test="b")])
    assert eventually(lambda: kinds(first) == ["spare", "vm"]), "there is no spare"
    assert eventually(lambda: not making_spares()), "the spare is never finished"
    started = []
    waits = in_thread(lambda: started.append(acquired(first if own else second, "big", test="c")))
    waits.join(60)
    assert started, "it waits for a spare whose QEMU has ended"


def test_a_spare_for_which_the_books_cannot_be_read_fails_nobody(share, base, monkeypatch):
    monkeypatch.setattr(promises, "PATIENCE", 0.1)
    manager = share({"nano": NANO}, max_memory=40 * MIB)
    acquired(manager, test="a")
    fd = os.open(base, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # as a process that was stopped there
        manager.want_next([wanted(manager, test="b")])
    finally:
        os.close(fd)
    assert kinds(manager) == ["vm"]


def making_spares():
    return [thread for thread in threading.enumerate() if thread.name == "maqet-spare"]


def test_a_start_that_fails_gives_its_memory_back(share):
    manager = share({"bad": {**BOOT, "arguments": ["nonsense"]}, "nano": BOOT}, max_memory=24 * MIB)
    with pytest.raises(Exception, match="nonsense"):
        acquired(manager, "bad")
    assert kinds(manager) == []
    acquired(manager)


def test_freezing_a_running_vm_needs_room_for_its_copy(share):
    manager = share({"nano": NANO}, max_memory=24 * MIB)
    vm = acquired(manager)
    with pytest.raises(NoRoom):
        vm.freeze()
    assert vm.status == "running"
    assert kinds(manager) == ["vm"]


def test_auto_asks_the_host(share, monkeypatch):
    # The host's memory is made up: no test may use up that of the machine.
    monkeypatch.setattr(room, "host_memory", lambda: HostMemory(4096 * MIB, 600 * MIB, "this host"))
    manager = share({"nano": BOOT, "big": {**BOOT, "memory": "1G"}})
    acquired(manager)
    with pytest.raises(NoRoom) as caught:
        acquired(manager, "big")
    message = str(caught.value)
    assert "1024 MiB wanted, and 192 MiB for QEMU itself; this host has 600 MiB available of 4096" in message
    assert "nano: 16 MiB (gw0" in message, message
    assert "--maqet-max-memory=SIZE" in message, "what can be done about it?"
    assert acquired(manager, test="again", memory="24M").status == "running"


def test_where_waiting_would_not_help_half_of_the_memory_is_enough_for_auto(share, monkeypatch):
    monkeypatch.setattr(room, "host_memory", lambda: HostMemory(4096 * MIB, 600 * MIB, "this host"))
    manager = share({"nano": BOOT, "big": {**BOOT, "memory": "512M"}})
    acquired(manager)
    assert acquired(manager, "big").status == "running"
    told = manager._launcher.listener.lines
    assert len([line for line in told if "big starts although memory is short: 512 MiB" in line]) == 1, told


def test_one_who_waits_long_is_told(share, in_thread, monkeypatch):
    monkeypatch.setattr(room, "TELL_AFTER", 0.2)
    first, second = (share({"nano": BOOT}, max_memory=24 * MIB) for _ in range(2))
    vm = acquired(first)
    in_thread(lambda: acquired(second))
    told = second._launcher.listener.lines
    assert eventually(lambda: any("nano waits for memory" in line for line in told)), told
    first.stop(vm)


def test_a_wait_that_is_interrupted_leaves_no_wish(share, monkeypatch):
    first, second = (share({"nano": BOOT}, max_memory=24 * MIB) for _ in range(2))
    acquired(first)
    before = signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        with pytest.raises(KeyboardInterrupt):
            acquired(second)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert kinds(first) == ["vm"]


CROWD = """
import time, pytest
@pytest.mark.parametrize("n", range(4))
def test_it(nano, n):
    time.sleep(0.3)
"""


@pytest.mark.parametrize(
    "also",
    [
        "",
        # Each worker keeps one for its session: those that have none wait, and nobody is refused.
        "store, ",
    ],
)
def test_workers_share_the_memory(suite, leftovers, tmp_path, also):
    log = tmp_path / "log"
    more = "  store: {image: builtin:nano, memory: 16M, scope: session}\n"
    (suite.path / "maqet.yaml").write_text(f"vms:\n  nano: {{image: builtin:nano, memory: 16M}}\n{more}")
    suite.makepyfile(CROWD.replace("nano, n", f"{also}nano, n"))
    suite.makeconftest(
        f"""
        def pytest_maqet_vm_started(vm): open({str(log)!r}, "a").write("+")
        def pytest_maqet_vm_stopping(vm): open({str(log)!r}, "a").write("-")
        """
    )
    arguments = ["-n2", "--maqet-max-memory=40M", "-p", "no:cacheprovider"]
    result = suite.runpytest_subprocess(*arguments, timeout=120)
    result.assert_outcomes(passed=4)
    running = most = 0
    for sign in log.read_text():
        running += 1 if sign == "+" else -1
        most = max(most, running)
    assert 1 <= most <= 2, f"{most} VMs of 16 MiB were running in 40 MiB: {log.read_text()}"
    leftovers.check()


def test_auto_starts_as_many_workers_as_there_is_memory_for(suite):
    suite.makepyfile("def test_it(): pass")
    result = suite.runpytest_subprocess(
        "-nauto", "--maqet-max-memory=24M", "-p", "no:cacheprovider", timeout=60
    )
    assert result.ret == 0
    if len(os.sched_getaffinity(0)) > 1:
        told = "maqet: 1 worker instead of *: --maqet-max-memory is 24 MiB, and nano takes 16 MiB"
        result.stdout.fnmatch_lines([told])
        result.stdout.fnmatch_lines(["created: 1/1 worker*"])


def test_the_number_of_workers(suite, monkeypatch):
    limited = suite.parseconfig("--maqet-max-memory=40M")
    assert capped(limited, 7) == 2
    assert capped(limited, 1) == 1, "more workers than wanted"
    assert capped(suite.parseconfig("--maqet-max-memory=1M"), 7) == 1, "no worker would be no run"
    monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", "5")
    assert capped(limited, 5) == 5, "xdist's own variable is the last word"
    monkeypatch.delenv("PYTEST_XDIST_AUTO_NUM_WORKERS")
    (suite.path / "maqet.yaml").write_text("vms: {nano: {memori: 1}}")
    assert capped(limited, 7) == 7, "what is wrong is told when the plugin is configured"


def test_the_number_of_workers_by_what_the_host_has(suite, monkeypatch):
    # The host's memory is made up: no test may use up that of the machine.
    monkeypatch.setattr(
        host_memory, "host_memory", lambda: HostMemory(999 * MIB, 500 * MIB, "the cgroup /job")
    )
    config = suite.parseconfig()
    assert capped(config, 7) == 2, "256 MiB stay free, and QEMU takes 66 MiB beside 16 MiB"
    assert config.stash[REASON] == (
        "2 workers instead of 7: the cgroup /job has 500 MiB available, and nano takes 16 MiB"
    )
