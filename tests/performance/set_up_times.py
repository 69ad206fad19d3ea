"""A pytest plugin that measures the set-ups of boot_suite and puts the tests of a pair beside each other."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from pathlib import Path

import pytest

TIMES: dict[str, list[float]] = {"first": [], "fixture": [], "plain": []}


@pytest.fixture
def times() -> dict[str, list[float]]:
    """Where measurements go, by the way that was measured."""
    return TIMES


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test, then the pairs, in alternating order."""

    def place(item: pytest.Item) -> tuple[int, bool]:
        callspec = getattr(item, "callspec", None)
        number = callspec.params["number"] if callspec else -1
        return number, (item.name.startswith("test_plain")) == (number % 2 == 0)

    items.sort(key=place)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """The whole set-up of a test, with everything that anybody does in it."""
    started = time.perf_counter()
    result = yield
    took = time.perf_counter() - started
    way = item.name.removeprefix("test_").partition("[")[0]
    if way != "plain":
        TIMES[way].append(took)
    return result


def pytest_sessionfinish() -> None:
    """Hand the times to the benchmark."""
    Path(os.environ["BENCH_TIMES"]).write_text(json.dumps(TIMES))
