"""The end of a run in a few lines: how many VMs were started and how, the slowest, what tests left broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import pytest

from pytest_maqet.management.records import merged
from pytest_maqet.masking import masked
from pytest_maqet.reporting.artifacts import mark_ignored
from pytest_maqet.session import SESSION
from pytest_maqet.visible_text import visible


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Write the lines; nothing for a run that used no VM, and under -q only what went wrong."""
    session = config.stash[SESSION]
    session.end()
    total = merged(session.ledgers.values())
    lines = list(_trouble(total))
    if config.get_verbosity() >= 0 and total["starts"]:
        lines = [
            _counts(total),
            *_templates(total),
            *_slowest(total, session.settings.durations),
            *lines,
        ]
    with suppress(OSError):
        mark_ignored(session.settings.artifacts)
    if not lines:
        return
    terminalreporter.write_sep("=", "maqet")  # unlike section() it ends the line of dots
    for line in lines:
        terminalreporter.write_line(visible(masked(line)))


def _counts(total: Mapping[str, Any]) -> str:
    """`7 VM starts: 5 cloned (4 from the pool), 1 booted, 1 failed; slowest web, 3.2 s (test_a.py::test)`."""
    kinds = (("clones", "cloned"), ("boots", "booted"), ("joins", "joined"), ("failures", "failed"))
    count = len(total["starts"])
    parts = [f"{total[key]} {word}" for key, word in kinds if total[key]]
    if total["clones"] and total["pool_hits"]:
        parts[0] += f" ({total['pool_hits']} from the pool)"
    if total["clones"] and not total["boots"] and not total["templates"]:
        parts.append("none booted")
    text = f"{count} VM start{'s' * (count != 1)}: {', '.join(parts)}"
    if total["replacements"]:
        text += f"; {total['replacements']} in place of an unusable one"
    if total["remembered"]:
        text += f" ({total['remembered']} not tried again)"
    done = _by_duration(total)
    if done:
        text += f"; slowest {_shown(done[0])}"
    if total["lock_seconds"] >= 0.1:
        text += f"; waited {total['lock_seconds']:.1f} s for start locks"
    return text


#: How reasons begin that the user gave: the header has them, or the YAML.
_ASKED_FOR = ("start: ", "--maqet-")


def _templates(total: Mapping[str, Any]) -> Iterator[str]:
    """Which templates were made, and why VMs were booted that might have been clones."""
    for made in total["templates"]:
        where = f" on {made['worker']}" if made["worker"] != "main" else ""
        yield f"made the template of {made['vm']}{where} in {made['seconds']:.1f} s"
    reasons = Counter(
        (record["vm"], record["reason"])
        for record in total["starts"]
        if record["reason"] and not record["reason"].startswith(_ASKED_FOR)
    )
    for (vm, reason), count in sorted(reasons.items()):
        times = f" {count} times" if count > 1 else ""
        yield f"{vm} was booted{times}: {reason}"


def _slowest(total: Mapping[str, Any], number: int) -> Iterator[str]:
    """The lines of `--maqet-durations N`."""
    for record in _by_duration(total)[:number]:
        seconds = record["ready"] - record["began"]
        yield f"{seconds:8.2f} s  {record['how']:8} {record['vm']} ({record['test']})"


def _by_duration(total: Mapping[str, Any]) -> list[dict[str, Any]]:
    done = [record for record in total["starts"] if record["ready"] is not None]
    return sorted(done, key=lambda record: record["began"] - record["ready"])


def _shown(record: Mapping[str, Any]) -> str:
    return f"{record['vm']}, {record['ready'] - record['began']:.1f} s ({record['test']})"


def _trouble(total: Mapping[str, Any]) -> Iterator[str]:
    """What did not go as it should, who left a shared VM unusable, and where the artifacts are."""
    yield from total["notes"]
    for together in _of_one_life(total["spoiled"]):
        tests = " or ".join(_culprit(one) for one in together)
        yield f"{together[0]['vm']} was unusable after {tests}: {together[0]['reason']}"
    folders = sorted(set(total["artifacts"]))
    for folder in folders[:3]:
        yield f"artifacts: {folder}"
    if len(folders) > 3:
        yield f"artifacts: {len(folders) - 3} more beside them"


def _of_one_life(spoiled: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Culprits, those together of whom any may have broken the VM: they used it at the same time."""
    lives: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in spoiled:
        lives.setdefault((one["vm"], one["life"] or one["worker"]), []).append(one)
    return list(lives.values())


def _culprit(spoiled: Mapping[str, Any]) -> str:
    where = f" on {spoiled['worker']}" if spoiled["worker"] != "main" else ""
    return f"{spoiled['test']}{where}"
