"""Four tests with a VM each; what the plugin recorded of their starts goes to files, one for each worker."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def record(maqet, request):
    yield
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    records = maqet.stats()["starts"]
    (Path(os.environ["BENCH_RECORDS"]) / f"{worker}.json").write_text(json.dumps(records))


def test_one(one):
    assert one.status == "running"


def test_two(two):
    assert two.status == "running"


def test_three(three):
    assert three.status == "running"


def test_four(four):
    assert four.status == "running"
