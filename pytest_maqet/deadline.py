"""One value for "until when", handed through all layers.

A public call turns its `timeout=` (seconds) into a `Deadline` once; everything below asks the deadline and
never adds up time-outs of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

#: The first pause of a poll that cannot be avoided, in seconds.
FIRST_PAUSE = 0.002
#: No poll is ever further apart than this, in seconds.
LONGEST_PAUSE = 0.5
#: A wait that is part of another may end this many seconds after it: the last look needs some time, too.
LAST_LOOK = 1.0


@dataclass(frozen=True)
class Deadline:
    """A point in time, with the words to speak of it.

    `seconds` is the whole span, already multiplied by `scale` (see `--maqet-timeout-scale`).
    """

    seconds: float
    scale: float = 1.0
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def after(cls, seconds: float, scale: float = 1.0) -> Deadline:
        """The deadline `seconds` × `scale` from now.

        Raises ValueError when `seconds` is negative.
        """
        if seconds < 0:
            raise ValueError(f"a timeout must not be negative, got {seconds!r}")
        return cls(seconds * scale, scale)

    @property
    def elapsed(self) -> float:
        """Seconds since the deadline was set."""
        return time.monotonic() - self.started

    @property
    def remaining(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self.seconds - self.elapsed)

    @property
    def expired(self) -> bool:
        """Whether no time is left."""
        return self.remaining <= 0

    def within(self, seconds: float) -> Deadline:
        """A deadline at most `seconds` (unscaled) from now, and never later than this one."""
        return Deadline(min(self.remaining, seconds), 1.0)

    def __str__(self) -> str:
        """`5 s`, or `40 s (5 s × 8)` when scaled."""
        if self.scale == 1.0:
            return f"{self.seconds:g} s"
        return f"{self.seconds:g} s ({self.seconds / self.scale:g} s × {self.scale:g})"


_outer: ContextVar[Deadline | None] = ContextVar("pytest_maqet_outer_deadline", default=None)


@contextmanager
def enclosing(deadline: Deadline) -> Iterator[None]:
    """What this thread waits for in the block ends with `deadline`, whatever time it was given itself."""
    outer = _outer.get()
    token = _outer.set(deadline if outer is None or deadline.remaining < outer.remaining else outer)
    try:
        yield
    finally:
        _outer.reset(token)


def enclosed(deadline: Deadline) -> Deadline:
    """`deadline`, or the end of the wait that this one is part of if that is earlier, and `LAST_LOOK`."""
    outer = _outer.get()
    if outer is None or deadline.remaining <= outer.remaining + LAST_LOOK:
        return deadline
    return Deadline(outer.remaining + LAST_LOOK)


def pauses(deadline: Deadline) -> Iterator[float]:
    """Pauses for a poll that cannot be avoided, in seconds, ending at the deadline.

    Each is a tenth of the time already waited, between `FIRST_PAUSE` and `LONGEST_PAUSE`. The last one is 0,
    after the deadline: there is always one more look when the time is over, and one where there was none.
    """
    while not deadline.expired:
        yield min(max(FIRST_PAUSE, deadline.elapsed / 10), LONGEST_PAUSE, deadline.remaining)
    yield 0.0
