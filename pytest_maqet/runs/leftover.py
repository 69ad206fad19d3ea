"""Something that may be removed: what it is, why it may go, and how."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Leftover:
    """One thing that nobody needs any more.

    `kind` is a word for it ("run", "template"), `size` the bytes it takes on the disk, `reason` why it may
    go. `remove` looks once more whether that still holds, under the locks of those who could have begun to
    use it, and gives None, or in words why it is still there.
    """

    kind: str
    path: Path
    size: int
    reason: str
    remove: Callable[[], str | None]


#: What `Leftover.remove` says of something that somebody has begun to use since it was found.
IN_USE_NOW = "it is in use now"


@dataclass
class Found:
    """What was looked at: `leftovers`, what is `used` (a line each) and what is none of ours (`foreign`)."""

    leftovers: list[Leftover] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    @classmethod
    def all(cls, several: Iterable[Found]) -> Found:
        """Everything of several."""
        together = cls()
        for one in several:
            together.leftovers += one.leftovers
            together.used += one.used
            together.foreign += one.foreign
        return together


def ago(when: float) -> str:
    """A time in seconds since the epoch as a person says it."""
    seconds = max(0.0, time.time() - when)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "a moment ago"
