"""What is said to a person about memory: why a VM is refused, and what one waits for."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_maqet.management.room_rules import MARGIN, Sight
from pytest_maqet.runs.promises import Entry

_HINT = "give VMs less `memory:`, run fewer workers (-n), or let VMs of wide scopes end earlier"


def refusal(wanted: Sequence[Entry], sight: Sight, reason: str) -> tuple[str, str]:
    """Message and hint for VMs that get no memory."""
    lines = [f"{_names(wanted)}: there is no memory for {_it(wanted)}: {_sum(wanted, sight)}"]
    if sight.promised:
        lines += ["promised to:", *(f"  {_line(entry)}" for entry in sight.promised)]
    if reason:
        lines.append(f"waiting would not help: {reason}")
    helps = _HINT if sight.promised else "give it less `memory:`"
    if sight.limit is not None:
        return "\n".join(lines), f"{helps}, or allow more with --maqet-max-memory"
    more = "say with --maqet-max-memory=SIZE how much the guests may take, and the host is not asked"
    return "\n".join(lines), f"{helps}, or {more}"


def waiting(wanted: Sequence[Entry], sight: Sight) -> str:
    """One line for a person who wonders."""
    has = ", ".join(dict.fromkeys(f"{entry.vm} ({entry.owner})" for entry in sight.promised))
    return (
        f"{_names(wanted)} waits for memory: {_sum(wanted, sight)}; {has or 'nobody'} has some "
        "(--maqet-max-memory sets another limit)"
    )


def short(wanted: Sequence[Entry], sight: Sight) -> str:
    """One line about VMs that start although memory is short."""
    return f"{_names(wanted)} starts although memory is short: {_sum(wanted, sight)}"


def _sum(wanted: Sequence[Entry], sight: Sight) -> str:
    memory = sum(entry.memory for entry in wanted)
    if sight.limit is not None:
        return (
            f"{_mib(memory)} wanted, {_mib(sight.left or 0)} left of the {_mib(sight.limit)} "
            "of --maqet-max-memory"
        )
    if sight.host is None:
        return f"{_mib(memory)} wanted"
    extra = sum(entry.whole for entry in wanted) - memory
    promised = sum(entry.open for entry in sight.promised)
    return (
        f"{_mib(memory)} wanted, and {_mib(extra)} for QEMU itself; {sight.host.source} has "
        f"{_mib(sight.host.available)} available of {_mib(sight.host.total)}, less {_mib(promised)} promised "
        f"to VMs that do not use it yet and {_mib(MARGIN)} that stay free"
    )


def _line(entry: Entry) -> str:
    kinds = {"run": ", for the whole run", "spare": ", a spare", "evicted": ", a spare that is going"}
    return f"{entry.vm}: {_mib(entry.memory)} ({entry.owner}{kinds.get(entry.kind, '')})"


def _names(wanted: Sequence[Entry]) -> str:
    return " and ".join(dict.fromkeys(entry.vm for entry in wanted))


def _it(wanted: Sequence[Entry]) -> str:
    return "it" if len(wanted) == 1 else "all of them at once"


def _mib(size: int) -> str:
    return f"{max(0, size) >> 20} MiB"
