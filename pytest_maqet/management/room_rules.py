"""Who gets memory, who waits for it, and who is refused: rules over the books, without clock or lock.

The rules that exclude a deadlock are in `why_not_wait`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_maqet.host_memory import HostMemory
from pytest_maqet.runs.promises import Entry

#: What `auto` leaves to the host, and what spares leave to it, in bytes.
MARGIN, SPARE_MARGIN = 256 << 20, 512 << 20


def with_qemu(memory: int) -> int:
    """A guest's memory and what its QEMU takes beside it, in bytes.

    Measured on QEMU 7.2 under TCG: 25 MiB for a guest that does nothing, 60 MiB for a busy one of 256 MiB;
    most of it is translated code, which grows with what the guest has to run.
    """
    return memory + memory // 8 + (64 << 20)


@dataclass(frozen=True)
class Sight:
    """What one process sees of the books, without its own wish.

    `limit` is `--maqet-max-memory` in bytes, for the run's guests; None is `auto`, where `host` counts (None:
    the host does not say, and nothing is limited). `process` is the one that looks, `run` its run.
    """

    entries: tuple[Entry, ...]
    limit: int | None
    host: HostMemory | None
    process: str
    run: Path

    @classmethod
    def of(
        cls, entries: Sequence[Entry], limit: int | None, host: HostMemory | None, process: str, run: Path
    ) -> Sight:
        """The entries that count: with a limit those of this run, else those of all runs of the user."""
        counting = (entry for entry in entries if limit is None or entry.run == run)
        return cls(tuple(counting), limit, host, process, run)

    @property
    def promised(self) -> tuple[Entry, ...]:
        """All promises that still take memory.

        An evicted spare takes none from its QEMU's end on; its owner notices later, maybe much later.
        """
        return tuple(
            entry
            for entry in self.entries
            if entry.kind not in ("wish", "turn") and not (entry.kind == "evicted" and entry.over)
        )

    @property
    def wishes(self) -> tuple[Entry, ...]:
        """All who wait."""
        return tuple(entry for entry in self.entries if entry.kind == "wish")

    @property
    def turns(self) -> tuple[Entry, ...]:
        """All who wait until a shared VM is free for them."""
        return tuple(entry for entry in self.entries if entry.kind == "turn")

    @property
    def spares(self) -> tuple[Entry, ...]:
        """What goes before anybody waits, and what is going already."""
        return tuple(entry for entry in self.promised if entry.kind in ("spare", "evicted"))

    @property
    def holding(self) -> bool:
        """Whether this process has VMs that will end before the run does."""
        return any(entry.kind == "vm" and entry.process == self.process for entry in self.entries)

    @property
    def left(self) -> int | None:
        """Bytes that are promised to nobody; None without a limit."""
        if self.limit is not None:
            return self.limit - sum(entry.memory for entry in self.promised)
        if self.host is None:
            return None
        return self.host.available - sum(entry.open for entry in self.promised) - MARGIN

    def lack(self, wanted: Sequence[Entry]) -> int:
        """How many bytes are missing for these; 0 or less where there is room."""
        left = self.left
        if left is None:
            return 0
        spare = any(entry.kind == "spare" for entry in wanted)
        if self.limit is not None:
            return sum(entry.memory for entry in wanted) - left
        return sum(entry.whole for entry in wanted) - left + (SPARE_MARGIN - MARGIN if spare else 0)

    def impossible(self, wanted: Sequence[Entry]) -> bool:
        """Whether there would be too little even if nobody else had any."""
        if self.limit is not None:
            return sum(entry.memory for entry in wanted) > self.limit
        return self.host is not None and sum(entry.memory for entry in wanted) > self.host.total

    def may_run_short(self, wanted: Sequence[Entry]) -> bool:
        """Whether these may start although others were promised what they need, nobody giving any back.

        Under `auto`, when half of it is free now: guests seldom use all their memory.
        """
        if self.limit is not None or self.host is None:
            return False
        return self.host.available - MARGIN >= sum(entry.whole for entry in wanted) // 2

    def behind(self, since: float) -> bool:
        """Whether another process of the run has waited longer.

        Who has VMs is never behind: others may be waiting for these to end.
        """
        older = (wish for wish in self.wishes if wish.run == self.run and wish.process != self.process)
        return not self.holding and any(wish.since < since for wish in older)


@dataclass(frozen=True)
class Ties:
    """What a process has that others may be waiting for.

    `keeps` names what nobody else gets meanwhile ("" for nothing), `doors` are the locks of the VMs that it
    uses along with others.
    """

    keeps: str = ""
    doors: tuple[str, ...] = ()


def why_not_wait(sight: Sight, wish: Entry | None, ties: Ties) -> str:
    """Why waiting is no way out, in words; "" where it is one.

    `wish` is ours, None before there is one; `ties` are what this process has.

    - Spares go at once, and whoever has VMs and does not wait gives them up some day: wait. Who stands in the
      queue for a VM that is used by somebody who waits for memory waits for memory, too.
    - Where all who have VMs wait, one of those is refused who have VMs or use one that another queues for:
      the last of them to begin. Its test ends, and with it what it had.
    - Where nobody has any, nobody will give any up.
    """
    if sight.spares:
        return ""
    if ties.keeps:
        return f"this process keeps {ties.keeps} meanwhile, and others may be waiting for that"
    used = [*ties.doors, *(door for one in sight.wishes for door in one.doors)]
    waiting = {one.process for one in (*sight.wishes, *_queue(sight, used))}
    having = {one.process for one in sight.promised if one.kind == "vm"} - {sight.process}
    if having - waiting:
        return ""
    queue = _queue(sight, ties.doors)
    if not sight.holding and not queue:
        behind = wish is not None and sight.behind(wish.since)
        return "" if having or behind else "no test has any that it would give back"
    rivals = [one for one in sight.wishes if one.process in having or _queue(sight, one.doors)]
    if wish is not None and any(one.since > wish.since for one in rivals):
        return ""
    if queue:
        return f"{queue[0].owner} waits until {queue[0].vm} is free, which this process uses meanwhile"
    if not having:
        return "this process has VMs of its own, and nobody else has any to give back"
    return "this process has VMs of its own, and all others that have some wait for memory themselves"


def _queue(sight: Sight, doors: Sequence[str]) -> list[Entry]:
    """Who waits for a turn at a VM with one of these locks."""
    return [turn for turn in sight.turns if not set(doors).isdisjoint(turn.doors)]
