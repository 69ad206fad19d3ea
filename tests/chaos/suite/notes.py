"""A pytest plugin (`-p notes`) that notes each result with its time, in the file that CHAOS_NOTES names."""

import json
import os
import time
from pathlib import Path


def pytest_runtest_logreport(report):
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # the controller hears of it, too
    said = {"time": time.time(), "test": report.nodeid, "when": report.when, "outcome": report.outcome}
    if report.failed:
        said["text"] = str(report.longrepr)[-2000:]
    with Path(os.environ["CHAOS_NOTES"]).open("a", encoding="utf-8") as notes:
        notes.write(json.dumps(said) + "\n")
