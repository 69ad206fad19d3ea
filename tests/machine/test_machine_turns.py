"""A VM that several processes share: many at once, or one alone."""

import contextlib
import os
import threading

import pytest

from pytest_maqet import LockTimeout
from pytest_maqet.machine.turns import Turns


def two(tmp_path):
    return Turns(tmp_path / "door", "web"), Turns(tmp_path / "door", "web")


def test_many_share(tmp_path):
    one, other = two(tmp_path)
    one.share(1, "gw0")
    other.share(0.05, "gw1")
    one.leave()
    other.leave()


def test_alone_waits_for_those_who_share(tmp_path):
    one, other = two(tmp_path)
    one.share(1, "gw0")
    with pytest.raises(LockTimeout, match="web was not free for gw1"), other.hold_alone(0.05, "gw1"):
        pass
    one.leave()
    with other.hold_alone(1, "gw1"):
        assert other.alone


def test_who_shares_waits_for_the_one_alone_and_is_told_who_it_is(tmp_path):
    one, other = two(tmp_path)
    told = pytest.raises(LockTimeout, match=r"gw0, test_a\.py::test_b has it alone")
    with one.hold_alone(1, "gw0, test_a.py::test_b"), told as caught:
        other.share(0.05, "gw1")
    assert caught.value.holder == "gw0, test_a.py::test_b"
    other.share(1, "gw1")
    other.leave()


def test_one_that_shares_can_have_it_alone_and_shares_again_after(tmp_path):
    one, other = two(tmp_path)
    one.share(1, "gw0")
    with one.hold_alone(1, "gw0"):
        pass
    with pytest.raises(LockTimeout), other.hold_alone(0.05, "gw1"):
        pass
    one.leave()


def test_it_may_be_nested(tmp_path):
    one, _ = two(tmp_path)
    with one.hold_alone(1, "gw0"):
        with one.hold_alone(1, "gw0"):
            pass
        assert one.alone, "the inner block gave up the outer one's turn"
    assert not one.alone


def test_two_that_share_and_both_want_it_alone_get_it_in_turn(tmp_path):
    one, other = two(tmp_path)
    one.share(1, "gw0")
    other.share(1, "gw1")
    done = []

    def alone(turns, name):
        with turns.hold_alone(20, name):
            done.append(name)
        turns.leave()

    threads = [threading.Thread(target=alone, args=pair) for pair in ((one, "gw0"), (other, "gw1"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(done) == ["gw0", "gw1"], "they wait for each other"


def test_a_dead_process_gives_its_turn_back(tmp_path):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        Turns(tmp_path / "door", "web").share(1, "child")
        os.write(writing, b"x")
        os._exit(0)
    os.read(reading, 1)
    os.waitpid(child, 0)
    with Turns(tmp_path / "door", "web").hold_alone(1, "parent"):
        pass


@pytest.mark.parametrize("alone", [False, True])
def test_a_forked_child_leaves_its_parents_turn_alone(tmp_path, alone):
    """The numbers of its parent's locks belong to other files of the child by then."""
    turns = Turns(tmp_path / "door", "web")
    with contextlib.ExitStack() as leaving:
        if alone:
            leaving.enter_context(turns.hold_alone(1, "parent"))
        else:
            turns.share(1, "parent")
            leaving.callback(turns.leave)
        child = os.fork()
        if child == 0:
            try:
                own = [os.open(os.devnull, os.O_RDONLY) for _ in range(4)]
                leaving.close()
                for descriptor in own:
                    os.fstat(descriptor)
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert status == 0, "the child closed files of its own, or could not leave"
        with pytest.raises(LockTimeout, match="parent has it alone" if alone else "other tests use it"):
            Turns(tmp_path / "door", "web").hold_alone(0.1, "other").__enter__()
