"""What is written down about each start of a VM, and what a run makes of it, merged from all workers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

#: What is a list in a ledger, beside the starts.
_LISTS = ("spoiled", "artifacts", "templates", "notes")


@dataclass
class StartRecord:
    """One start of a VM, or one joining of a VM that runs already.

    Times are seconds since the epoch, so that records of several workers can be compared; None is "never":
    a start without a lock, or one that failed before the VM was ready. `how` is "boot", "clone", "join" or
    "failed"; `reason` why it is a boot and no clone; `replaced`: it took the place of a VM left unusable.
    """

    vm: str
    scope: str
    worker: str
    test: str
    began: float
    how: str = "boot"
    reason: str = ""
    lock_acquired: float | None = None
    lock_released: float | None = None
    ready: float | None = None
    error: str | None = None
    replaced: bool = False
    pooled: bool = False

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
        self.templates: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def begin(self, vm: str, scope: str, test: str) -> StartRecord:
        """A new record of a start that begins now."""
        record = StartRecord(vm, scope, self.worker, test, time.time())
        self.starts.append(record)
        return record

    def made_template(self, vm: str, key: str, began: float) -> None:
        """A template was made, since `began`."""
        self.templates.append({"vm": vm, "key": key, "worker": self.worker, "seconds": time.time() - began})

    def note(self, line: str) -> None:
        """Something a person should read in the summary, once."""
        if line not in self.notes:
            self.notes.append(line)

    def export(self) -> dict[str, Any]:
        """The ledger as builtin types."""
        return {
            "starts": [asdict(record) for record in self.starts],
            "spoiled": [asdict(one) for one in self.spoiled],
            "artifacts": list(self.artifacts),
            "remembered": self.remembered,
            "templates": [dict(one) for one in self.templates],
            "notes": list(self.notes),
        }


def merged(exports: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Several exported ledgers as one, with counts.

    Keys: `starts` (records, by beginning), `boots`, `clones`, `pool_hits` (clones that were ready before they
    were asked for), `joins`, `replacements`, `failures`, `remembered` (starts that were not tried because the
    same had failed before), `lock_seconds` (waited for start locks), `templates` (made in this run), `notes`,
    `spoiled`, `artifacts`.
    """
    starts: list[dict[str, Any]] = []
    total: dict[str, Any] = {"starts": starts, "remembered": 0}
    total |= {name: [] for name in _LISTS}
    for export in exports:
        starts.extend(export["starts"])
        for name in _LISTS:
            total[name].extend(one for one in export[name] if name != "notes" or one not in total[name])
        total["remembered"] += export["remembered"]
    total["spoiled"] = _each_once(total["spoiled"])
    starts.sort(key=lambda record: record["began"])
    for name, how in (
        ("boots", "boot"),
        ("clones", "clone"),
        ("joins", "join"),
        ("failures", "failed"),
    ):
        total[name] = sum(record["how"] == how for record in starts)
    total["replacements"] = sum(record["replaced"] for record in starts)
    total["pool_hits"] = sum(record["pooled"] for record in starts)
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
