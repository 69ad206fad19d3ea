"""What a benchmark gives back, and how two ways of doing the same are compared.

Times of different runs, and of different machines, say little; what counts are ratios within one run. So two
ways are measured in turns (A B, B A, A B, …), which shares out what else the machine does, and medians and
differences *within pairs* are told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True)
class Check:
    """A requirement, what was found, and whether that holds."""

    wanted: str
    found: str
    held: bool

    def __str__(self) -> str:
        return f"{'holds' if self.held else '**does not hold**'}: {self.wanted}; found: {self.found}"


@dataclass(frozen=True)
class Figures:
    """The result of one benchmark: a table, remarks below it, and its requirements."""

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    checks: list[Check] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """As a table with a list below it."""
        widths = [max(map(len, column)) for column in zip(self.head, *self.rows, strict=True)]
        lines = [_row(self.head, widths), "|" + "|".join("-" * (width + 2) for width in widths) + "|"]
        lines += [_row(row, widths) for row in self.rows]
        below = [*self.remarks, *map(str, self.checks)]
        return "\n".join(lines) + "\n" + "".join(f"\n- {text}" for text in below) + "\n" * bool(below)


@dataclass(frozen=True)
class Pairs:
    """Measurements of two ways, taken in turns; `ours` is compared with `base`. Seconds."""

    base: tuple[float, ...]
    ours: tuple[float, ...]

    @property
    def base_median(self) -> float:
        """The median of the base's times."""
        return median(self.base)

    @property
    def ours_median(self) -> float:
        """The median of our times."""
        return median(self.ours)

    @property
    def ratio(self) -> float:
        """The median over all pairs of ours / base."""
        return median(ours / base for base, ours in zip(self.base, self.ours, strict=True))

    @property
    def more(self) -> float:
        """The median over all pairs of ours - base, in seconds."""
        return median(self.beyond(0.0))

    def beyond(self, share: float) -> Iterator[float]:
        """For each pair, what ours takes beyond base plus `share` of base, in seconds."""
        return (ours - base * (1 + share) for base, ours in zip(self.base, self.ours, strict=True))


def in_turns(base: Callable[[], float], ours: Callable[[], float], pairs: int) -> Pairs:
    """Measure both `pairs` times, in alternating order; each callable returns seconds."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(pairs):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            times[which].append((base, ours)[which]())
    return Pairs(tuple(times[0]), tuple(times[1]))


def milliseconds(seconds: float) -> str:
    """`12.3 ms`."""
    return f"{seconds * 1000:.1f} ms"


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
