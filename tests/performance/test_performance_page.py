"""docs/performance.md has a place for every benchmark's figures."""

from __future__ import annotations

import run
from measuring import Check, Figures, Pairs


def test_every_benchmark_has_its_place():
    texts = {name: f"figures of {name}" for name in ("machine", *run.BENCHMARKS)}
    page = run.written(run.PAGE.read_text(), texts)
    for text in texts.values():
        assert text in page, f"{text} did not get into the page"
    assert run.written(page, texts) == page, "writing twice changes nothing"


def test_a_requirement_that_does_not_hold_is_seen_in_the_page():
    figures = Figures(("way", "time"), [("ours", "2 s")], [Check("at most 1 s", "2 s", held=False)])
    assert "- **does not hold**: at most 1 s; found: 2 s" in figures.markdown()


def test_pairs_are_compared_pair_by_pair():
    pairs = Pairs(base=(1.0, 10.0, 100.0), ours=(2.0, 11.0, 101.0))
    assert pairs.more == 1.0, "the machine was ten times slower in one pair, the difference was the same"
    assert pairs.ratio == 1.1
