"""A pytest plugin that writes down what each test took by pytest's own measure, from all xdist workers.

It needs nothing but pytest, so that it can measure suites in other environments too.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

TIMES: dict[str, dict[str, float]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Seconds of a phase that passed; with xdist the controller hears of them all."""
    if report.passed:
        TIMES.setdefault(report.nodeid, {})[report.when] = report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the times to the benchmark."""
    if not hasattr(session.config, "workerinput"):
        Path(os.environ["PEER_TIMES"]).write_text(json.dumps(TIMES))
