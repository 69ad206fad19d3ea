"""What is written down about each start of a VM, and what a run makes of it, merged from all workers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class StartRecord:
    """One start of a VM, or one joining of a VM that runs already.

    Times are seconds since the epoch, so that records of several workers can be compared; None is "never":
    a start without a lock, or one that failed before the VM was ready. `how` is "boot", "join", "replace" or
    "failed".
    """

    vm: str
    scope: str
    worker: str
    test: str
    began: float
    how: str = "boot"
    lock_acquired: float | None = None
    lock_released: float | None = None
    ready: float | None = None
    error: str | None = None

    @property
    def seconds(self) -> float | None:
        """From the wish to the ready VM, waiting for a lock included."""
        return None if self.ready is None else self.ready - self.began


@dataclass(frozen=True)
class Spoiled:
    """A shared VM that a test left unusable: which, how it was found, after which test.

    `life` tells one QEMU of the VM from the next: it is the name of its directory.
    """

    vm: str
    reason: str
    test: str
    worker: str
    life: str = ""


class Ledger:
    """All records of one process; what `export` gives goes through xdist's channel."""

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self.starts: list[StartRecord] = []
        self.spoiled: list[Spoiled] = []
        self.artifacts: list[str] = []
        self.remembered = 0

    def begin(self, vm: str, scope: str, test: str) -> StartRecord:
        """A new record of a start that begins now."""
        record = StartRecord(vm, scope, self.worker, test, time.time())
        self.starts.append(record)
        return record

    def export(self) -> dict[str, Any]:
        """The ledger as builtin types."""
        return {
            "starts": [asdict(record) for record in self.starts],
            "spoiled": [asdict(one) for one in self.spoiled],
            "artifacts": list(self.artifacts),
            "remembered": self.remembered,
        }


def merged(exports: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Several exported ledgers as one, with counts.

    Keys: `starts` (records, by beginning), `boots`, `joins`, `replacements`, `failures`, `remembered` (starts
    that were not tried because the same had failed before), `lock_seconds` (waited for start locks),
    `spoiled`, `artifacts`.
    """
    starts: list[dict[str, Any]] = []
    total: dict[str, Any] = {"starts": starts, "spoiled": [], "artifacts": [], "remembered": 0}
    for export in exports:
        starts.extend(export["starts"])
        total["spoiled"].extend(export["spoiled"])
        total["artifacts"].extend(export["artifacts"])
        total["remembered"] += export["remembered"]
    total["spoiled"] = _each_once(total["spoiled"])
    starts.sort(key=lambda record: record["began"])
    for name, how in (
        ("boots", "boot"),
        ("joins", "join"),
        ("replacements", "replace"),
        ("failures", "failed"),
    ):
        total[name] = sum(record["how"] == how for record in starts)
    total["lock_seconds"] = sum(
        record["lock_acquired"] - record["began"] for record in starts if record["lock_acquired"] is not None
    )
    return total


def _each_once(spoiled: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The culprits without repetition: one is told by its own worker and by the one that replaced the VM."""
    told: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in spoiled:
        told.setdefault((one["vm"], one["life"], one["test"], one["worker"]), one)
    return list(told.values())
