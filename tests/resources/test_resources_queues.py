"""Who waits for memory, and who waits for a VM that workers share: never each for the other."""

from __future__ import annotations

import os

import pytest
from resource_rig import MIB, NANO, acquired, eventually, wanted

from pytest_maqet.errors import NoRoom
from pytest_maqet.runs.promises import Books

BOOT = {**NANO, "start": "boot"}
VMS = {"hub": {**BOOT, "scope": "run"}, "nano": BOOT}


def kinds(manager) -> list[str]:
    """What the books say now."""
    with Books(manager.run_dir).opened() as entries:
        return sorted(entry.kind for entry in entries)


def alone(vm, got) -> None:
    with vm.exclusive():
        got.append(vm.name)


def test_who_uses_a_vm_that_another_wants_alone_does_not_wait_for_that_ones_memory(share, in_thread):
    first, second = (share(VMS, max_memory=40 * MIB) for _ in range(2))
    hub = acquired(first, "hub", test="a")
    acquired(second, "nano", test="b")
    got: list[str] = []
    others = acquired(second, "hub", test="b")
    in_thread(lambda: alone(others, got))
    assert eventually(lambda: "turn" in kinds(first)), "nobody can know that gw1 waits for the hub"
    with pytest.raises(NoRoom, match=r"gw1, .* waits until hub is free, which this process uses meanwhile"):
        acquired(first, "nano", test="a")
    assert got == []
    hub.shared_use.end()  # as the end of its test does
    assert eventually(lambda: got == ["hub"])
    assert eventually(lambda: "turn" not in kinds(first)), "the turn is still on the books"


def test_one_that_waits_for_memory_is_told_when_somebody_comes_to_wait_for_its_vm(share, in_thread):
    first, second = (share(VMS, max_memory=40 * MIB) for _ in range(2))
    hub = acquired(first, "hub", test="a")
    acquired(second, "nano", test="b")
    others = acquired(second, "hub", test="b")
    refused: list[str] = []

    def wait_for_memory() -> None:
        with pytest.raises(NoRoom) as caught:
            acquired(first, "nano", test="a")
        refused.append(str(caught.value))
        hub.shared_use.end()

    in_thread(wait_for_memory)
    assert eventually(lambda: "wish" in kinds(first)), "it does not wait although gw1 can end"
    got: list[str] = []
    alone(others, got)
    assert got == ["hub"]
    assert "waits until hub is free" in refused[0]


def test_it_waits_where_somebody_else_gives_memory_back(share, in_thread):
    first, second, third = (share(VMS, max_memory=56 * MIB) for _ in range(3))
    hub = acquired(first, "hub", test="a")
    acquired(second, "nano", test="b")
    others = acquired(second, "hub", test="b")
    last = acquired(third, "nano", test="c")
    got: list[str] = []
    in_thread(lambda: alone(others, got))
    assert eventually(lambda: "turn" in kinds(first))
    in_thread(lambda: got.append(acquired(first, "nano", test="a").name))
    assert eventually(lambda: "wish" in kinds(first)), "it does not wait although gw2 can end"
    third.stop(last)
    assert eventually(lambda: got == ["nano"])
    hub.shared_use.end()
    assert eventually(lambda: got == ["nano", "hub"])


WORKERS = """
import os, time, pytest
from pathlib import Path
from pytest_maqet import StartError

FIRST = os.environ["PYTEST_XDIST_WORKER"] == "gw0"

def wait(name):
    end = time.monotonic() + 60
    while not Path(name).exists():
        assert time.monotonic() < end, f"nobody told {name}"
        time.sleep(0.01)

if FIRST:
    def test_it(hub, vms):
        Path("used").touch()
        wait("has one")
        with pytest.raises(StartError, match="waits until hub is free"):
            vms["nano"]
else:
    def test_it(nano, vms):
        wait("used")
        hub = vms["hub"]
        Path("has one").touch()
        with hub.exclusive():
            hub.reset()
"""


def test_two_workers_do_not_wait_for_each_other(suite, leftovers):
    (suite.path / "maqet.yaml").write_text(
        "vms:\n"
        "  nano: {image: builtin:nano, memory: 16M}\n"
        "  hub: {image: builtin:nano, memory: 16M, scope: run}\n"
    )
    suite.makepyfile(WORKERS)
    arguments = ["-n2", "--dist=each", "--maqet-max-memory=40M", "-p", "no:cacheprovider"]
    suite.runpytest_subprocess(*arguments, timeout=120).assert_outcomes(passed=2)
    leftovers.check()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one processor there are no spares")
def test_a_vm_that_grows_takes_the_memory_of_spares(share):
    first, second = (share({"nano": NANO, "big": BOOT}, max_memory=56 * MIB) for _ in range(2))
    vm = acquired(second, "big", test="a")
    acquired(first, test="a")
    first.want_next([wanted(first, test="b")])
    assert eventually(lambda: kinds(first) == ["spare", "vm", "vm"]), "there is no spare"
    vm.kill()
    vm.start(memory="32M")
    assert vm.status == "running", "it was refused although only a spare was in the way"
