"""Signals at random moments against runs of a suite with real VMs: nothing is left, and the next run passes.

The same as `chaos.py` on a small scale. What one of these found can be repeated: the plans come from a seed.
"""

from __future__ import annotations

import pytest
from chaos_home import Home
from chaos_plans import dense_plan, plan
from chaos_rounds import Limits, Outcome, Runner

#: Patience of a test: the figures are measured by chaos.py, on a machine that does nothing else.
PATIENT = Limits(gone=40.0, orphans=60.0, hanging=240.0)
#: Faults of each test; there are three.
FAULTS = 14
SEED = 4


@pytest.mark.parametrize(
    ("first", "workers", "cold"), [(0, 0, True), (10, 0, False), (20, 2, True)], ids=["new", "kept", "xdist"]
)
def test_nothing_is_left_whatever_is_hit(home: Home, first: int, workers: int, cold: bool) -> None:
    """The next run of a fault is the next round's; after the last one comes one that nothing hits."""
    runner = Runner(home, PATIENT)
    delivered = 0
    for number in range(first, first + 10):
        wanted = dense_plan(SEED, number, workers, cold=cold)
        outcome = runner.faulty_run(wanted)
        assert not outcome.complaints, told(outcome)
        delivered += len(outcome.delivered)
        if delivered >= FAULTS:
            break
    assert delivered >= FAULTS, f"only {delivered} faults hit anybody"
    clean = runner.clean_run(wanted)
    assert not clean.complaints, told(clean)


def told(outcome: Outcome) -> str:
    """What was done and what did not hold."""
    lines = [str(outcome.round), *map(str, outcome.delivered), *outcome.complaints]
    return "\n".join(lines)


def test_a_seed_gives_the_same_plan_again() -> None:
    assert plan(7, 3, linux=True) == plan(7, 3, linux=True)
    assert plan(7, 3, linux=True) != plan(8, 3, linux=True)
    assert dense_plan(7, 3, 2, cold=True) == dense_plan(7, 3, 2, cold=True)
