"""Single keys changed from outside the files: `--maqet-set vms.web.memory=1G`, and a marker's overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_maqet.config.documents import TOP_KEYS
from pytest_maqet.config.merging import merged_mapping
from pytest_maqet.config.places import MappingNode, Mark, SequenceNode, Source, planted
from pytest_maqet.config.problems import Problems, listed, nearest
from pytest_maqet.config.yaml_loader import NOTHING, load_yaml
from pytest_maqet.errors import ConfigError

#: Keys that are settled before there are tests, and so for no single test.
_SETTLED = ("name", "extends", "fixture", "count", "matrix")


def with_settings(
    tree: MappingNode, settings: Sequence[str], environ: Mapping[str, str], problems: Problems
) -> MappingNode:
    """The tree with each `key.path=value` over it, in order; the value is YAML, a missing one null."""
    for setting in settings:
        source = Source.of_words(f"--maqet-set {setting if len(setting) < 100 else setting[:99] + '…'}")
        key_path, equals, text = setting.partition("=")
        path = key_path.strip().split(".")
        if not equals or not all(path):
            problems.add(source.name, "", "not of the form KEY.PATH=VALUE", "such as vms.web.memory=1G")
            continue
        if not _known(tree, path, source, problems):
            continue
        try:
            value = load_yaml(text, source, problems=problems, environ=environ)
        except ConfigError as error:
            for line in error.problems:
                problems.add(line, "", "")
            continue
        mark = Mark(source, 0, 0, 0, 0, text.strip())
        tree = merged_mapping(tree, _nested(path, None if value is NOTHING else value, mark))
    return tree


def _known(tree: MappingNode, path: list[str], source: Source, problems: Problems) -> bool:
    vms = tree.get("vms")
    names = list(vms) if isinstance(vms, MappingNode) else []
    if path[0] not in TOP_KEYS:
        near = f"vms.{'.'.join(path)}" if path[0] in names else nearest(path[0], TOP_KEYS)
        problems.add(source.name, path[0], "unknown key", f"allowed are {listed(TOP_KEYS)}", near)
        return False
    if path[0] == "vms" and (len(path) < 2 or path[1] not in names):
        name = path[1] if len(path) > 1 else ""
        found = f"there is no VM {name!r}" if name else "no VM is named"
        problems.add(source.name, ".".join(path), found, f"there are {listed(names)}", nearest(name, names))
        return False
    return True


def overridden(
    vm: MappingNode, overrides: Mapping[str, Any], words: str, key_path: str, problems: Problems
) -> MappingNode:
    """A VM with a marker's overrides over it; keys may have dots. `words` say where they come from."""
    mark = Mark(Source.of_words(words or "override"), 0, 0, 0, 0)
    for key, value in overrides.items():
        path = str(key).split(".")
        if path[0] in _SETTLED:
            problems.add(
                words, f"{key_path}.{key}", "cannot be changed for one test", "change it in the YAML"
            )
            continue
        try:
            node = planted(value, mark)
        except ValueError as error:
            problems.add(words, f"{key_path}.{key}", str(error))
            continue
        vm = merged_mapping(vm, _nested(path, node, mark))
    return vm


def _nested(path: Sequence[str], value: Any, mark: Mark) -> MappingNode:
    """The value under its path; the part after `storage` is a device's name."""
    place = mark._replace(text=mark.text if not isinstance(value, (str, MappingNode, SequenceNode)) else None)
    node, previous = value, mark._replace(text=None)
    for index in range(len(path) - 1, -1, -1):
        at = place if index == len(path) - 1 else previous
        if index > 0 and path[index - 1] == "storage":
            device = node if isinstance(node, MappingNode) else MappingNode(previous)
            named = MappingNode(previous)
            named.put("name", path[index], previous)
            for key, item in device.items():
                named.put(key, item, device.marks[key])
            sequence = SequenceNode(previous)
            sequence.put(named, previous)
            node = sequence
            continue
        mapping = MappingNode(previous)
        mapping.put(path[index], node, at)
        node = mapping
    assert isinstance(node, MappingNode)
    return node
