"""Who waits for memory and who is refused, over books that are written here: every case, without a VM."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_maqet.host_memory import HostMemory
from pytest_maqet.management.room_rules import MARGIN, SPARE_MARGIN, Sight, Ties, why_not_wait
from pytest_maqet.runs.promises import Entry, Kind

MIB = 1 << 20
RUN, OTHER_RUN = Path("/base/run"), Path("/base/other")


def entry(process: str, kind: Kind = "vm", *, memory: int = 100, since: float = 0, run: Path = RUN) -> Entry:
    path = run / "memory" / f"{process}-{kind}-{since}.promise"
    return Entry("web", memory * MIB, (memory + 10) * MIB, process, process, kind, since, path=path)


def sight(*entries: Entry, limit: int | None = 300, available: int = 1000, me: str = "me") -> Sight:
    host = HostMemory(2000 * MIB, available * MIB, "this host")
    return Sight.of(entries, limit * MIB if limit is not None else None, host, me, RUN)


def test_a_limit_counts_the_guests_of_this_run_only():
    seen = sight(entry("a"), entry("b", run=OTHER_RUN), entry("c", "wish"))
    assert seen.left == 200 * MIB
    assert seen.lack([entry("me", memory=200)]) == 0
    assert seen.lack([entry("me", memory=201)]) == MIB


def test_auto_counts_all_runs_and_what_qemu_takes():
    seen = sight(entry("a"), entry("b", run=OTHER_RUN), limit=None)
    assert seen.left == (1000 - 110 - 110) * MIB - MARGIN, "promises that nobody uses yet are still to come"
    assert seen.lack([entry("me")]) == 110 * MIB - (seen.left or 0)


def test_a_spare_leaves_more_to_the_host():
    seen = sight(limit=None)
    assert seen.lack([entry("me", "spare")]) - seen.lack([entry("me")]) == SPARE_MARGIN - MARGIN


def test_nothing_is_limited_where_the_host_does_not_say():
    seen = Sight.of([entry("a")], None, None, "me", RUN)
    assert seen.lack([entry("me", memory=1 << 20)]) == 0
    assert not seen.impossible([entry("me", memory=1 << 20)])


@pytest.mark.parametrize("limit", [300, None])
def test_more_than_there_is_at_all_is_impossible(limit):
    assert sight(limit=limit).impossible([entry("me", memory=1500), entry("me", memory=1500)])
    assert not sight(limit=limit).impossible([entry("me", memory=300)])


def test_one_that_has_nothing_waits_for_one_that_has():
    assert why_not_wait(sight(entry("a")), None, Ties()) == ""


def test_nobody_waits_where_nobody_has_anything():
    assert "no test has any" in why_not_wait(sight(), None, Ties())
    assert "no test has any" in why_not_wait(sight(entry("a", "run")), None, Ties()), (
        "a VM of all workers lives until the run's end"
    )


def test_one_that_has_a_vm_waits_while_somebody_runs():
    assert why_not_wait(sight(entry("me"), entry("a")), None, Ties()) == ""


def test_the_last_of_all_to_wait_is_refused():
    reason = why_not_wait(sight(entry("me"), entry("a"), entry("a", "wish")), None, Ties())
    assert "wait for memory themselves" in reason


def test_of_those_who_wait_in_a_circle_only_the_youngest_is_refused():
    mine = entry("me", "wish", since=1)
    younger = sight(entry("me"), entry("a"), entry("a", "wish", since=2))
    assert why_not_wait(younger, mine, Ties()) == "", "the other one gives up first"
    older = sight(entry("me"), entry("a"), entry("a", "wish", since=0.5))
    assert "wait for memory themselves" in why_not_wait(older, mine, Ties())


def test_a_single_process_never_waits_for_itself():
    reason = why_not_wait(sight(entry("me"), entry("me")), None, Ties())
    assert "this process has VMs of its own" in reason


def test_one_that_has_nothing_waits_while_others_sort_it_out():
    assert why_not_wait(sight(entry("a"), entry("a", "wish")), None, Ties()) == ""


def test_who_keeps_a_lock_never_waits():
    assert "vm_start_lock('x')" in why_not_wait(sight(entry("a")), None, Ties("vm_start_lock('x')"))


def test_spares_go_before_anybody_is_refused():
    assert why_not_wait(sight(entry("me"), entry("a", "spare")), None, Ties()) == ""


def test_first_come_first_served_but_for_those_who_have_vms():
    older = entry("a", "wish", since=1)
    assert sight(older).behind(2)
    assert not sight(older).behind(0.5)
    assert not sight(older, entry("me")).behind(2), "others may be waiting for this one's end"
    assert not sight(entry("a", "wish", since=1, run=OTHER_RUN), limit=None).behind(2)


def turn(process: str, door: str, *, since: float = 0) -> Entry:
    return replace(entry(process, "turn", memory=0, since=since), doors=(door,))


def wish_in(process: str, *doors: str, since: float = 0) -> Entry:
    return replace(entry(process, "wish", since=since), doors=doors)


def test_who_uses_a_vm_that_a_vm_owner_queues_for_is_refused():
    seen = sight(entry("a"), turn("a", "shared"))
    assert why_not_wait(seen, None, Ties(doors=("another",))) == "", "that queue is none of ours"
    reason = why_not_wait(seen, None, Ties(doors=("shared",)))
    assert reason == "a waits until web is free, which this process uses meanwhile"


def test_who_uses_a_vm_that_others_queue_for_waits_while_somebody_else_gives_memory_back():
    seen = sight(entry("a"), turn("a", "shared"), entry("b"))
    assert why_not_wait(seen, None, Ties(doors=("shared",))) == ""


def test_one_outside_waits_while_those_in_the_queue_sort_it_out():
    seen = sight(entry("a"), turn("a", "shared"), wish_in("b", "shared", since=1))
    assert why_not_wait(seen, wish_in("me", since=2), Ties()) == ""


def test_of_two_whose_vms_are_queued_for_only_the_youngest_is_refused():
    others = [entry("a"), turn("a", "one"), entry("b"), turn("b", "two"), wish_in("c", "two", since=2)]
    mine = Ties(doors=("one",))
    assert why_not_wait(sight(*others), wish_in("me", "one", since=1), mine) == "", "c gives up first"
    reason = why_not_wait(sight(*others), wish_in("me", "one", since=3), mine)
    assert "a waits until web is free" in reason


def test_a_turn_takes_no_memory():
    seen = sight(turn("a", "shared"))
    assert (seen.left, seen.promised, seen.wishes) == (300 * MIB, (), ())
