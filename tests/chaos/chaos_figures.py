"""What a series of rounds came to, as figures."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from chaos_plans import SIGNALS, TARGETS
from chaos_rounds import Outcome


@dataclass
class Figures:
    """Counts of all rounds so far."""

    faults: int = 0
    runs: int = 0
    tests: int = 0
    failed: int = 0
    complaints: list[str] = field(default_factory=list)
    _count: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    _clean: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, outcome: Outcome) -> None:
        """Count an outcome in."""
        self.runs += 1
        self.faults += len(outcome.delivered)
        self.tests += outcome.passed
        self.failed += outcome.failed
        self.complaints += outcome.complaints
        for delivered in outcome.delivered:
            target = delivered.fault.target
            if outcome.round.workers and target in ("controller", "session", "owners"):
                target += " (-n2)"
            self._count[target, delivered.fault.signal] += 1
            self._clean[target].append(delivered.clean)

    def table(self) -> str:
        """Faults by target and signal, and the slowest clean-up of each target, in Markdown."""
        lines = [
            f"{self.faults} faults in {self.runs} runs, {self.tests} tests passed and {self.failed} failed; "
            f"{len(self.complaints)} violations.",
            "",
            f"| target | {' | '.join(SIGNALS)} | clean after, median | slowest |",
            f"|---|{'---|' * (len(SIGNALS) + 2)}",
        ]
        order = {name: place for place, name in enumerate(TARGETS)}
        for target in sorted(self._clean, key=lambda name: (order[name.split()[0]], name)):
            times = sorted(self._clean[target])
            counts = " | ".join(str(self._count[target, name]) for name in SIGNALS)
            median = times[len(times) // 2]
            lines.append(f"| {target} | {counts} | {median:.2f} s | {times[-1]:.2f} s |")
        return "\n".join(lines)
