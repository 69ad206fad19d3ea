"""What the user decided for a whole run, whatever way it was said; knows neither pytest nor YAML."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: The widest bound on threads that start or stop VMs at once, and the narrowest.
MOST_THREADS, FEWEST_THREADS = 16, 4


@dataclass(frozen=True)
class Settings:
    """The resolved options of a run; each field is an option of the same name (see `options.OPTIONS`).

    `sources` says for every field that was set where that was done ("command line", "environment variable
    MAQET_ACCEL", "ini key maqet_accel"); fields at their default are not in it.
    """

    #: YAML files, merged left to right; empty when the run has no configuration.
    config: tuple[Path, ...] = ()
    #: `dotted.key=value` settings, the last word over the files.
    set: tuple[str, ...] = ()
    #: Names of the VMs that `vm` means in tests without a marker; several parametrise them.
    vm: tuple[str, ...] = ()
    accel: str = "auto"
    start: str = "auto"
    templates: str = "auto"
    #: Bytes that the kept templates may take on the disk; what was not used for longest goes first.
    templates_size: int = 20 << 30
    keep: str = "never"
    attach: tuple[str, ...] = ()
    #: Where logs and screenshots of failed tests go.
    artifacts: Path = Path(".maqet/artifacts")
    #: Factor on every timeout; None is `auto`: 1, or 8 under TCG.
    timeout_scale: float | None = None
    #: Bytes that the guests of a run may have together; None is `auto`: what the host can give.
    max_memory: int | None = None
    skips: str = "allow"
    live: str | None = None
    #: How many of the slowest VM starts the summary lists; 0 is none.
    durations: int = 0
    trace: str | None = None
    save_failed: bool = False
    sources: Mapping[str, str] = field(default_factory=dict)

    def source(self, name: str) -> str:
        """Words for an error: where the setting `name` came from."""
        return self.sources.get(name, "default")


def thread_bound(workers: int = 1) -> int:
    """How many VMs one worker starts or stops at once: min(16, max(4, 2 × CPUs)) divided among `workers`.

    At least 1. The CPUs are those this process may run on.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_THREADS, max(FEWEST_THREADS, 2 * cpus)) // max(1, workers))
