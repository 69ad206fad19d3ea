"""A VM's merged tree made ready for validation: nulls out, paths absolute, arguments read, fixtures found."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pytest_maqet.config.arguments import read_arguments
from pytest_maqet.config.later_models import LATER_KEYS, LATER_VALUES
from pytest_maqet.config.paths import PathError, PathResolver
from pytest_maqet.config.places import MappingNode, Mark, SequenceNode, planted
from pytest_maqet.config.problems import Problems

_URL = re.compile(r"[a-z][a-z0-9+.-]*:")
#: Keys that decide which fixtures there are.
_SETTLED_KEYS = ("scope", "fixture", "count", "matrix")
_UNSET: tuple[Any, ...] = (None, False, [], {})


class FixtureReference:
    """Stands where `{fixture: NAME}` was written, until its value is known."""

    def __init__(self, name: str) -> None:
        self.name = name


def fixture_of(node: Any) -> str | None:
    """The name in `{fixture: NAME}`, None for everything else."""
    if isinstance(node, MappingNode) and len(node) == 1:
        name = node.get("fixture")
        return name if isinstance(name, str) else None
    return None


def fixtures_in(vm: MappingNode) -> tuple[str, ...]:
    """All fixtures whose values a VM needs, in the order written, each once."""
    found: dict[str, None] = {}
    open_nodes = [vm[key] for key in reversed(vm)]
    while open_nodes:
        node = open_nodes.pop()
        name = fixture_of(node)
        if name is not None:
            found[name] = None
        elif isinstance(node, MappingNode):
            open_nodes += reversed(node.values())
        elif isinstance(node, SequenceNode):
            open_nodes += reversed(node)
    return tuple(found)


def with_fixture_values(
    node: Any, mark: Mark, values: Mapping[str, Any], source_of: Callable[[str], Mark]
) -> Any:
    """A tree with the values of fixtures put in where they are known; returns the node and its mark."""
    name = fixture_of(node)
    if name is not None and name in values:
        return planted(values[name], source_of(name)), source_of(name)
    if isinstance(node, MappingNode):
        mapping = MappingNode(node.home)
        for key, value in node.items():
            mapping.put(key, *with_fixture_values(value, node.marks[key], values, source_of))
        return mapping, mark
    if isinstance(node, SequenceNode):
        sequence = SequenceNode(node.home)
        for value, item_mark in zip(node, node.marks, strict=True):
            sequence.put(*with_fixture_values(value, item_mark, values, source_of))
        return sequence, mark
    return node, mark


class Preparation:
    """Prepares one VM; `references` are the key paths of fixtures whose values are still missing."""

    def __init__(self, name: str, problems: Problems, resolver: PathResolver) -> None:
        self.name = name
        self.references: list[tuple[str | int, ...]] = []
        self._problems = problems
        self._resolver = resolver

    def prepared(self, vm: MappingNode) -> dict[str, Any]:
        """The VM as plain data for `VmConfig`, but for `FixtureReference`s in it."""
        result: dict[str, Any] = {"name": self.name}
        for key, value in vm.items():
            if value is None:
                continue
            mark = vm.marks[key]
            if key == "arguments" and fixture_of(value) is None:
                result[key] = self._arguments(value, mark)
                continue
            paths = _PATHS.get(key)
            result[key] = self._plain(value, mark, (key,), paths)
        self._check_later(vm)
        return result

    def _plain(self, node: Any, mark: Mark, at: tuple[str | int, ...], paths: Any) -> Any:
        """A node as plain data; `paths` tells which parts of it are paths: a test, or a mapping of them.

        A tuple has one for each place of a sequence.
        """
        if isinstance(node, MappingNode):
            if (name := fixture_of(node)) is not None:
                self.references.append(at)
                return FixtureReference(name)
            inner = paths if isinstance(paths, dict) else {}
            keep_null = len(at) == 2  # `ready: [{agent: null}]`: a null says something in lists
            return {
                key: value
                if type(value) is str and key not in inner
                else self._plain(value, node.marks[key], (*at, key), inner.get(key))
                for key, value in node.items()
                if value is not None or (keep_null and at[0] in ("ready", "network"))
            }
        if isinstance(node, SequenceNode):
            each = paths if isinstance(paths, tuple) else (paths,) * len(node)
            each += (None,) * (len(node) - len(each))
            return [
                self._plain(value, item_mark, (*at, index), each[index])
                for index, (value, item_mark) in enumerate(zip(node, node.marks, strict=True))
            ]
        if isinstance(node, str) and node and callable(paths) and paths(node):
            return self._path(node, mark, at)
        return node

    def _path(self, text: str, mark: Mark, at: tuple[str | int, ...]) -> str:
        try:
            return self._resolver.resolve(text, mark.source)
        except PathError as error:
            self._problems.add(mark.value_place, key_path(self.name, at), str(error))
            return text

    def _arguments(self, node: Any, mark: Mark) -> Any:
        open_ones: list[int] = []
        if isinstance(node, SequenceNode):
            open_ones = [n for n, item in enumerate(node) if fixtures_in(_boxed(item, node.marks[n]))]
            self.references += [("arguments", index) for index in open_ones]
        path = key_path(self.name, ("arguments",))
        return read_arguments(node, mark, path, self._problems, self._resolver, open_ones)

    def _check_later(self, vm: MappingNode) -> None:
        for key in _SETTLED_KEYS:
            if fixture_of(vm.get(key)) is not None:
                where = vm.marks[key].value_place
                path = key_path(self.name, (key,))
                self._problems.add(
                    where, path, "a fixture cannot say this", "it is settled before any fixture runs"
                )
        for key in vm.keys() & LATER_KEYS.keys():
            if vm[key] not in _UNSET and not (key == "count" and vm[key] == 1):
                self._problems.add(
                    vm.marks[key].key_place,
                    key_path(self.name, (key,)),
                    f"not supported yet: {LATER_KEYS[key]}",
                )
        for steps, is_later, words, advice in LATER_VALUES:
            if steps[0] in vm:
                self._check_value(vm, (), steps, is_later, (words, advice))

    def _check_value(
        self,
        node: Any,
        at: tuple[str | int, ...],
        path: tuple[str, ...],
        is_later: Callable[[Any], bool],
        words: tuple[str, str],
    ) -> None:
        step, *rest = path
        steps: list[Any] = []
        if step == "*" and isinstance(node, SequenceNode):
            steps = list(range(len(node)))
        elif isinstance(node, MappingNode) and step in node:
            steps = [step]
        for one in steps:
            if rest:
                self._check_value(node[one], (*at, one), tuple(rest), is_later, words)
            elif is_later(node[one]):
                where = node.marks[one].value_place
                self._problems.add(
                    where, key_path(self.name, (*at, one)), f"not supported yet: {words[0]}", words[1]
                )


def _boxed(node: Any, mark: Mark) -> MappingNode:
    box = MappingNode(mark)
    box.put("", node, mark)
    return box


def key_path(name: str, at: tuple[str | int, ...]) -> str:
    """`vms.web.storage[3].size`."""
    return f"vms.{name}" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in at)


def _any(_text: str) -> bool:
    return True


#: Which values of a VM are paths.
_PATHS: Mapping[str, Any] = {
    "image": lambda text: not text.startswith("builtin:") and "://" not in text,
    "kernel": _any,
    "initrd": _any,
    "firmware": lambda text: text not in ("bios", "uefi"),
    "binary": lambda text: "/" in text or text.startswith("~"),
    "storage": {"file": _any, "path": _any, "backing_file": _any},
    "shares": {"path": _any},
    "guest": {"key": _any},
    "prepare": {"put": (_any, None)},
}
