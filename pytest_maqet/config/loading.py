"""`load_config`: files, hook, settings and environment into a `Config`."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pytest_maqet.config.configuration import Config
from pytest_maqet.config.documents import LONGEST_NAME, check_vm_names, checked_document
from pytest_maqet.config.files import read_text
from pytest_maqet.config.fixture_names import NamedFixture, check_fixture_names, default_fixture_name
from pytest_maqet.config.inheritance import inherited
from pytest_maqet.config.limits import DEFAULT_LIMITS, Limits, Tally
from pytest_maqet.config.merging import merged_mapping
from pytest_maqet.config.overrides import with_settings
from pytest_maqet.config.paths import PathResolver
from pytest_maqet.config.places import MappingNode, Mark, Source, plain, replanted
from pytest_maqet.config.preparation import Preparation
from pytest_maqet.config.problems import Problems, config_error, listed, nearest, shown
from pytest_maqet.config.secret_names import hide_secrets
from pytest_maqet.config.validation import validated
from pytest_maqet.config.vm_model import VmConfig
from pytest_maqet.config.yaml_loader import load_yaml
from pytest_maqet.errors import ConfigError

_NONE_RESERVED: Mapping[str, str] = MappingProxyType({})
_HOOK = "hook pytest_maqet_config"


def load_config(
    files: Sequence[Path],
    *,
    settings: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    change_tree: Callable[[dict[str, Any]], None] | None = None,
    reserved: Mapping[str, str] = _NONE_RESERVED,
    root: Path | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Config:
    """The configuration of a run, from files that are merged left to right.

    `settings` are `key.path=value` texts, the last word. `environ` (default: the process's) is what
    `${NAME}` means. `change_tree` may change the merged tree of plain dicts and lists in place before the
    settings are applied. `reserved` are fixture names that VMs may not have → who has them. `root` (default:
    `MAQET_ROOT` of `environ`, else none) is a directory that no path may lead out of.
    Raises ConfigError with all faults that were found; nothing else, whatever the files hold.
    """
    environ = os.environ if environ is None else environ
    with _without_collector():
        return _loaded(files, settings, environ, change_tree, reserved, root, limits)


@contextmanager
def _without_collector() -> Iterator[None]:
    """A tree has no circles, and looking for them takes a fifth of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _loaded(
    files: Sequence[Path],
    settings: Sequence[str],
    environ: Mapping[str, str],
    change_tree: Callable[[dict[str, Any]], None] | None,
    reserved: Mapping[str, str],
    root: Path | None,
    limits: Limits,
) -> Config:
    problems = Problems()
    tree = _merged_files(files, environ, problems, limits)
    if change_tree is not None:
        tree = _changed(tree, change_tree)
    tree = with_settings(tree, settings, environ, problems)
    hide_secrets(tree, environ, problems)
    _check_shapes(tree, problems, limits)
    nodes = inherited(tree, problems, limits)
    resolver = PathResolver(_root(root, environ))
    vms = _all_validated(nodes, problems, resolver)
    _check_fixtures(tree, nodes, reserved, problems)
    default = _default(tree, problems)
    problems.check()
    return Config(
        files=tuple(files),
        default=default,
        vms=MappingProxyType(vms),
        groups=MappingProxyType({}),
        _nodes=nodes,
        _resolver=resolver,
    )


def _root(root: Path | None, environ: Mapping[str, str]) -> Path | None:
    said = root or environ.get("MAQET_ROOT") or None
    if said is None:
        return None
    if not Path(said).is_dir():
        raise ConfigError(
            f"the root {str(said)!r} is no directory",
            hint="MAQET_ROOT is a directory that no path may lead out of",
        )
    return Path(said)


def _merged_files(
    files: Sequence[Path], environ: Mapping[str, str], problems: Problems, limits: Limits
) -> MappingNode:
    if not files:
        raise ConfigError(
            "no configuration file was given", hint="write a maqet.yaml, or name one with --maqet-config"
        )
    if len(files) > limits.files:
        raise ConfigError(f"{len(files)} configuration files were given; at most {limits.files} are read")
    tree: MappingNode | None = None
    unreadable: list[str] = []
    hints: list[str] = []
    tally = Tally()
    for path in files:
        source = Source.of_file(path)
        try:
            text = read_text(path, limits, tally)
            document = load_yaml(text, source, problems=problems, environ=environ, limits=limits, tally=tally)
            one = checked_document(document, path, source.name, problems)
        except ConfigError as error:
            unreadable += error.problems
            hints += [error.hint] if error.hint else []
            continue
        tree = one if tree is None else merged_mapping(tree, one)
    if unreadable:  # what depends on what was in them would only be noise
        raise config_error(unreadable, hints[0] if hints else None)
    assert tree is not None
    return tree


def _changed(tree: MappingNode, change_tree: Callable[[dict[str, Any]], None]) -> MappingNode:
    """The tree after Python code had it; new values are relative to the current directory."""
    changed = plain(tree)
    change_tree(changed)
    hook = Mark(Source.of_words(_HOOK), 0, 0, 0, 0)
    try:
        replaced, _ = replanted(changed, tree, tree.home, hook)
    except RecursionError:
        raise ConfigError(f"{_HOOK}: the tree is nested too deeply (does it contain itself?)") from None
    assert isinstance(replaced, MappingNode)
    return replaced


def _check_shapes(tree: MappingNode, problems: Problems, limits: Limits) -> None:
    vms = tree.get("vms")
    for key in ("vms", "defaults"):
        value = tree.get(key)
        if value is not None and not isinstance(value, MappingNode):
            problems.add(tree.marks[key].value_place, key, f"found {shown(value)}", "allowed is a mapping")
    defaults = tree.get("defaults")
    for key in ("fixture", "extends", "name"):
        if isinstance(defaults, MappingNode) and key in defaults:
            place = defaults.marks[key].key_place
            problems.add(place, f"defaults.{key}", "cannot be the same for all VMs", "put it under one VM")
    if tree.get("groups"):
        problems.add(tree.marks["groups"].key_place, "groups", "not supported yet: groups of VMs")
    if isinstance(vms, MappingNode) and vms:
        if len(vms) > limits.vms:
            raise config_error(
                [f"{tree.marks['vms'].key_place}: vms: {len(vms):,} VMs; at most {limits.vms:,}"]
            )
        check_vm_names(vms, problems)
    elif vms is None or isinstance(vms, MappingNode):
        problems.add(
            tree.home.value_place, "vms", "no VM is described", "such as `vms: {web: {image: builtin:linux}}`"
        )


def _all_validated(nodes: MappingNode, problems: Problems, resolver: PathResolver) -> dict[str, VmConfig]:
    vms: dict[str, VmConfig] = {}
    for name, node in nodes.items():
        if len(name) > LONGEST_NAME:
            continue  # reported already, and every other fault would repeat it
        config = validated(node, nodes.marks[name], Preparation(name, problems, resolver), problems)
        if config is not None:
            vms[name] = config
    return vms


def _check_fixtures(
    tree: MappingNode, nodes: MappingNode, reserved: Mapping[str, str], problems: Problems
) -> None:
    vms = tree.get("vms")
    if not isinstance(vms, MappingNode):
        return
    fixtures = []
    for name, node in nodes.items():
        said = node.get("fixture")
        if isinstance(said, str):
            fixtures.append(NamedFixture(name, said, True, node.marks["fixture"].value_place))
        else:
            fixtures.append(
                NamedFixture(name, default_fixture_name(name), False, nodes.marks[name].key_place)
            )
    check_fixture_names(fixtures, reserved, problems)


def _default(tree: MappingNode, problems: Problems) -> str | None:
    vms = tree.get("vms")
    names = list(vms) if isinstance(vms, MappingNode) else []
    default = tree.get("default")
    if default is None:
        return names[0] if len(names) == 1 else None
    mark = tree.marks["default"]
    if not isinstance(default, str):
        problems.add(
            mark.value_place, "default", f"found {mark.text or shown(default)}", "allowed is a VM's name"
        )
    elif names and default not in names:
        near = nearest(default, names)
        problems.add(
            mark.value_place, "default", f"there is no VM {default!r}", f"there are {listed(names)}", near
        )
    return str(default)
