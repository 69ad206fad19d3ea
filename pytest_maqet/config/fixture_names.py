"""Which pytest fixture gives a VM, and whether its name can be one. Needs no pytest."""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pytest_maqet.config.problems import Problems

#: Names that are taken whatever plugins there are.
_ALWAYS_TAKEN = {"request": "pytest"}


class NamedFixture(NamedTuple):
    """A VM's fixture name; `said` is whether `fixture:` gave it, `place` where it or the VM was named."""

    vm: str
    fixture: str
    said: bool
    place: str


def default_fixture_name(vm_name: str) -> str:
    """The VM's name with `_` for `-`."""
    return vm_name.replace("-", "_")


def check_fixture_names(
    fixtures: Iterable[NamedFixture], reserved: Mapping[str, str], problems: Problems
) -> None:
    """Every VM's fixture must be an identifier that nobody else has.

    `reserved`: fixture names that are taken already → who has them.
    """
    taken = {**reserved, **_ALWAYS_TAKEN}
    seen: dict[str, NamedFixture] = {}
    for named in fixtures:
        key_path = f"vms.{named.vm}" + (".fixture" if named.said else "")
        fault = _fault(named.fixture, taken)
        if fault:
            advice = "choose another" if named.said else "give the VM another one with `fixture: NAME`"
            problems.add(named.place, key_path, f"the fixture name {named.fixture!r} {fault}", advice)
            continue
        other = seen.setdefault(named.fixture, named)
        if other is not named:
            problems.add(
                named.place,
                key_path,
                f"the fixture name {named.fixture!r} is that of VM {other.vm!r} ({other.place}) too",
                "give one of them another with `fixture: NAME`",
            )


def _fault(name: str, taken: Mapping[str, str]) -> str:
    if not name.isidentifier():
        return "is no Python identifier"
    if keyword.iskeyword(name):
        return "is a Python keyword"
    if name.startswith("_"):
        return "begins with '_', which hides a fixture"
    if name in taken:
        return f"is taken by {taken[name]}"
    return ""
