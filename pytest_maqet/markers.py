"""The markers `maqet` and `maqet_requires`: what they say, and whether they say it right.

Faults are ConfigErrors: found while a test is collected they are its collection error; for unittest methods,
whose markers pytest does not show us then, they are found when the test is set up.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_maqet.errors import ConfigError

if TYPE_CHECKING:
    from pytest_maqet.templates.template import Template

#: Every scope a VM can have, from the narrowest to the widest.
SCOPES = ("function", "class", "module", "package", "session", "run")

#: The fixtures that read the `maqet` marker, with the scope of each.
MARKED_FIXTURES = {
    "vm": "function",
    "class_vm": "class",
    "module_vm": "module",
    "package_vm": "package",
    "session_vm": "session",
}

_REQUIREMENTS = ("kvm", "arch", "binary", "qemu", "guest", "provides")

#: A requirement on QEMU's version: an operator and a version.
VERSION = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*(\d+(?:\.\d+)*)\s*")

_MARKER_LINES = (
    "maqet(name_or_template, *, scope=None, exclusive=False, **overrides): choose the VM that `vm` gives "
    "this test, and change it: maqet('web', memory='1G', **{'cpu.count': 4}).",
    "maqet_requires(*, kvm=False, arch=None, binary=(), qemu=None, guest=None, provides=()): skip this test "
    "where a capability is missing: KVM, the host's architecture, programs on PATH, QEMU's version "
    "('>=8.2'), a command in the guest, a capability word of the VM.",
)


@dataclass(frozen=True)
class Choice:
    """Which VM a test asks for: the sum of its markers and parameters.

    `name` is None until the run's default is put in; `scope` None means the VM's own. `source` are the words
    for errors.
    """

    name: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    scope: str | None = None
    exclusive: bool = False
    source: str = ""
    template: Template | None = None

    @property
    def picked(self) -> str:
        """The VM's name, of a choice that has been completed."""
        assert self.name is not None, "the choice is not complete"
        return self.name

    @property
    def plain(self) -> bool:
        """Whether the VM is wanted as the YAML has it."""
        return not self.overrides and self.scope is None and self.template is None


def register(config: pytest.Config) -> None:
    """Make the markers known (`--markers`, `--strict-markers`)."""
    for line in _MARKER_LINES:
        config.addinivalue_line("markers", line)


def marked(node: pytest.Item | pytest.Collector | pytest.FixtureRequest, where: str) -> Choice:
    """The sum of the `maqet` markers on a node: outer ones first, the nearest wins.

    Overrides of an outer marker that names another VM than the one picked in the end do not count: they were
    meant for that other one. Raises ConfigError for a marker that is used wrongly.
    """
    nearest_first = [_one(mark, where) for mark in _marks(node)]
    named = next((choice for choice in nearest_first if choice.name is not None), Choice())
    overrides: dict[str, Any] = {}
    scope, exclusive = None, False
    for choice in reversed(nearest_first):
        if choice.name is not None and (choice.name, choice.template) != (named.name, named.template):
            continue
        overrides.update(choice.overrides)
        scope = choice.scope or scope
        exclusive = choice.exclusive or exclusive
    source = f"marker of {where}" if nearest_first else where
    return Choice(named.name, overrides, scope, exclusive, source, named.template)


def _marks(node: Any) -> Iterable[pytest.Mark]:
    """The `maqet` markers of a node, nearest first; a package's are in its `__init__.py`."""
    yield from node.iter_markers("maqet")
    if isinstance(node, pytest.Package):
        init = node.path / "__init__.py"
        loaded = list(sys.modules.values())
        module = next((one for one in loaded if getattr(one, "__file__", None) == str(init)), None)
        said = getattr(module, "pytestmark", [])
        for decorator in said if isinstance(said, list) else [said]:
            mark = decorator.mark if isinstance(decorator, pytest.MarkDecorator) else decorator
            if mark.name == "maqet":
                yield mark


def _one(mark: pytest.Mark, where: str) -> Choice:
    """One marker, checked by itself."""
    if len(mark.args) > 1:
        raise ConfigError(
            f"{where}: maqet(…) takes one VM name, got {', '.join(map(repr, mark.args))}; "
            "several VMs come from their own fixtures, or from `vms`."
        )
    name, template = name_or_template(mark.args[0], f"{where}: maqet(…)") if mark.args else (None, None)
    overrides = dict(mark.kwargs)
    scope = overrides.pop("scope", None)
    if scope is not None and scope not in SCOPES:
        raise ConfigError(f"{where}: maqet(scope={scope!r}): a scope is one of {', '.join(SCOPES)}.")
    exclusive = overrides.pop("exclusive", False)
    if not isinstance(exclusive, bool):
        raise ConfigError(f"{where}: maqet(exclusive={exclusive!r}): it is True or False.")
    return Choice(name, overrides, scope, exclusive, "", template)


def name_or_template(said: Any, where: str) -> tuple[str, Template | None]:
    """What may stand where a VM's name may: the name, or a template with the name of its VM.

    Raises ConfigError for anything else.
    """
    if isinstance(said, str):
        return said, None
    from pytest_maqet.templates.template import Template

    if isinstance(said, Template):
        return said.name, said
    raise ConfigError(f"{where} takes a VM's name or a template, got {said!r} ({type(said).__name__}).")


def changed(choice: Choice, parameter: Any) -> Choice:
    """A choice after an indirect parameter of `vm`: a VM's name, a template, or a mapping of overrides."""
    if isinstance(parameter, Mapping) and all(isinstance(key, str) for key in parameter):
        return replace(choice, overrides={**choice.overrides, **parameter})
    try:
        name, template = name_or_template(parameter, "")
    except ConfigError:
        raise ConfigError(
            f"{choice.source}: an indirect parameter of `vm` is a VM's name, a template or a dict of "
            f"overrides, got {parameter!r}."
        ) from None
    if choice.name in (None, name) and choice.template in (None, template):
        return replace(choice, name=name, template=template)
    return Choice(name, {}, None, choice.exclusive, choice.source, template)


def uses_a_marked_fixture(fixture_names: Iterable[str]) -> bool:
    """Whether a test with this closure may ask for a VM through its marker.

    With `request` in the closure it may do so at run time.
    """
    return any(name in MARKED_FIXTURES or name == "request" for name in fixture_names)


def unused_marker(where: str) -> ConfigError:
    """The error for a `maqet` marker that nothing reads."""
    return ConfigError(
        f"{where}: the maqet marker has no effect: the test uses no `vm` "
        f"(nor {', '.join(name for name in MARKED_FIXTURES if name != 'vm')}).",
        hint="add `vm` to the test's arguments, or remove the marker",
    )


def check_requirements(node: pytest.Item | pytest.Collector, where: str) -> None:
    """Raise ConfigError when a `maqet_requires` marker of a node is used wrongly."""
    for mark in node.iter_markers("maqet_requires"):
        if mark.args:
            raise ConfigError(f"{where}: maqet_requires(…) takes keywords only, got {mark.args[0]!r}.")
        for key in mark.kwargs:
            if key not in _REQUIREMENTS:
                raise ConfigError(
                    f"{where}: maqet_requires({key}=…) is not known; there are {', '.join(_REQUIREMENTS)}."
                )
    for version in required(node, "qemu"):
        if not VERSION.fullmatch(str(version)):
            raise ConfigError(f"{where}: maqet_requires(qemu={version!r}): write it like '>=8.2'.")


def required(node: pytest.Item | pytest.Collector, key: str) -> list[Any]:
    """The values that the `maqet_requires` markers of a test give for one key, lists taken apart."""
    values: list[Any] = []
    for mark in node.iter_markers("maqet_requires"):
        said = mark.kwargs.get(key)
        if said is None or said is False:
            continue
        values.extend(said if isinstance(said, (list, tuple, set)) else [said])
    return values
