"""`Config`: all VMs of a run, and each with what a test changes in it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pytest_maqet.config.overrides import overridden
from pytest_maqet.config.paths import PathResolver, missing_file
from pytest_maqet.config.places import MappingNode, Mark, Source
from pytest_maqet.config.preparation import Preparation, fixtures_in, with_fixture_values
from pytest_maqet.config.problems import Problems, listed, nearest
from pytest_maqet.config.secret_names import hide_secrets_of
from pytest_maqet.config.validation import validated
from pytest_maqet.config.vm_model import VmConfig
from pytest_maqet.errors import ConfigError

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Config:
    """The configuration of a run; never changed.

    `files` are those it was read from, `default` the name of the VM that `vm` means (None when nothing says
    so), `vms` all VMs by name, `groups` VM names by group. Values from fixtures are still open in `vms`.
    """

    files: tuple[Path, ...]
    default: str | None
    vms: Mapping[str, VmConfig]
    groups: Mapping[str, tuple[str, ...]]
    _nodes: MappingNode = field(repr=False)
    _resolver: PathResolver = field(repr=False)

    def vm(
        self,
        name: str,
        overrides: Mapping[str, Any] = _NOTHING,
        *,
        fixture_values: Mapping[str, Any] = _NOTHING,
        source: str = "",
    ) -> VmConfig:
        """One VM, with a test's overrides and the values of the fixtures it needs.

        Override keys may be dotted (`"cpu.count"`); their relative paths are relative to the current
        directory. `source` is what errors call them. Fixtures without a value in `fixture_values` stay open.
        Raises ConfigError with all faults.
        """
        node = self._node(name, source)
        if not overrides and not fixture_values:
            return self.vms[name]
        problems = Problems()
        node = overridden(node, overrides, source, f"vms.{name}", problems)
        hide_secrets_of(node, os.environ, problems)
        mark = self._nodes.marks[name]
        if fixture_values:
            node, _ = with_fixture_values(node, mark, fixture_values, _fixture_mark)
        config = validated(node, mark, Preparation(name, problems, self._resolver), problems)
        problems.check()
        assert config is not None
        return config

    def fixture_names(
        self, name: str, overrides: Mapping[str, Any] = _NOTHING, *, source: str = ""
    ) -> tuple[str, ...]:
        """The fixtures whose values a VM needs (`{fixture: NAME}`), in the order written."""
        problems = Problems()
        node = overridden(self._node(name, source), overrides, source, f"vms.{name}", problems)
        problems.check()
        return fixtures_in(node)

    def check_files(self, names: Iterable[str] | None = None) -> None:
        """Raise ConfigError unless every file that these VMs (None: all) name is there and can be read.

        Apart from validation, because a VM that no test uses may lack its image.
        """
        problems = Problems()
        for name in self.vms if names is None else names:
            self._node(name, "")
            for key, reason in _missing_files(self.vms[name]):
                problems.add(self._place(name, key), f"vms.{name}.{key}", reason)
        problems.check()

    def check_files_of(self, config: VmConfig, source: str) -> None:
        """Raise ConfigError unless every file that a VM with a test's overrides names is there.

        `source` is what the error calls them.
        """
        problems = Problems()
        for key, reason in _missing_files(config):
            problems.add(source, f"vms.{config.name}.{key}", reason)
        problems.check()

    def _place(self, name: str, key: str) -> str:
        node: Any = self._nodes[name]
        mark = self._nodes.marks[name]
        for step in key.replace("[", ".").replace("]", "").split("."):
            index: Any = int(step) if step.isdigit() else step
            if step == "file" and index not in node:
                index = "path"
            node, mark = node[index], node.marks[index]
        return mark.value_place

    def _node(self, name: str, source: str) -> MappingNode:
        node = self._nodes.get(name)
        if node is None:
            near = nearest(name, self.vms)
            said = f"there is no VM {name!r}; there are {listed(self.vms)}"
            raise ConfigError(
                ": ".join(part for part in (source, said) if part)
                + (f"; did you mean {near!r}?" if near else "")
            )
        assert isinstance(node, MappingNode)
        return node


def _missing_files(config: VmConfig) -> Iterator[tuple[str, str]]:
    """The keys whose file is not there or cannot be read, and why."""
    for key, path in config.paths().items():
        reason = missing_file(path)
        if reason:
            yield key, reason
    for index, step in enumerate(config.prepare):
        if step.put is not None and not os.path.lexists(step.put[0]):
            yield f"prepare[{index}].put[0]", f"{step.put[0]} does not exist"


def _fixture_mark(name: str) -> Mark:
    return Mark(Source.of_words(f"fixture {name!r}"), 0, 0, 0, 0)
