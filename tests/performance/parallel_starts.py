"""Do VMs of different names start at the same time on different workers? From the plugin's own records.

`maqet.stats()["starts"]` of each worker says when each start began and when its VM was ready.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import Check, Figures

SUITE = Path(__file__).parent / "parallel_suite"
WORKERS = 4


def measure() -> Figures:
    """The four starts, relative to the beginning of the first."""
    records = starts("-n", str(WORKERS))
    zero = min(record["began"] for record in records)
    rows = [
        (record["vm"], record["worker"], f"{record['began'] - zero:.2f} s", f"{record['ready'] - zero:.2f} s")
        for record in records
    ]
    last_began = max(record["began"] for record in records)
    first_ready = min(record["ready"] for record in records)
    span = max(record["ready"] for record in records) - zero
    together = sum(record["ready"] - record["began"] for record in records)
    waited = [record["vm"] for record in records if record["lock_acquired"] is not None]
    return Figures(
        ("VM", "worker", "start began", "ready"),
        rows,
        [
            Check(
                f"{WORKERS} VMs start on {WORKERS} workers",
                f"{len(records)} on {len({record['worker'] for record in records})}",
                len(records) == len({record["worker"] for record in records}) == WORKERS,
            ),
            Check(
                "every start begins before the first VM is ready",
                f"the last began after {last_began - zero:.2f} s, the first was ready after "
                f"{first_ready - zero:.2f} s",
                last_began < first_ready,
            ),
            Check("no start takes a lock", ", ".join(waited) or "none", not waited),
        ],
        [f"on average {together / span:.1f} starts were under way at once"],
    )


def starts(*arguments: str) -> list[dict[str, Any]]:
    """The records of all workers' starts, by their beginning."""
    with tempfile.TemporaryDirectory() as scratch:
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, "starts.py"],
            cwd=SUITE,
            env=env | {"BENCH_RECORDS": scratch, "MAQET_ARTIFACTS": scratch},
            stdout=sys.stderr,
            check=True,
        )
        found = [json.loads(file.read_text()) for file in Path(scratch).glob("*.json")]
    return sorted((record for records in found for record in records), key=lambda record: record["began"])
