"""What one file says: many VMs under `vms:`, or one VM at top level as in maqet's own files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pytest_maqet.config.places import MappingNode, Mark
from pytest_maqet.config.problems import Problems, config_error, listed, nearest, shown
from pytest_maqet.config.vm_model import VmConfig
from pytest_maqet.config.yaml_loader import NOTHING
from pytest_maqet.errors import ConfigError

#: The keys of a file with many VMs.
TOP_KEYS = ("vms", "defaults", "default", "groups")
#: The keys of a VM as users write them: `name` is the key under `vms:`.
VM_KEYS = (*(key for key in VmConfig.model_fields if key != "name"), "extends")
#: Words of other tools, and what they are called here.
OTHER_WORDS = {
    "args": "arguments",
    "cpus": "cpu",
    "smp": "cpu",
    "ram": "memory",
    "mem": "memory",
    "disk": "storage",
    "disks": "storage",
    "drives": "storage",
    "net": "network",
    "networks": "network",
    "nics": "network",
    "cmdline": "append",
    "bios": "firmware",
    "inherits": "extends",
    "wait": "ready",
    "wait_for": "ready",
    "qemu": "binary",
    "vm": "vms",
    "machines": "vms",
}
#: The longest name of a VM, in characters.
LONGEST_NAME = 64
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


def checked_document(root: Any, path: Path, shown_path: str, problems: Problems) -> MappingNode:
    """The root of one file in the form with `vms:`.

    Raises ConfigError when there is nothing in it or no mapping; unknown keys go to `problems`.
    """
    if root is NOTHING or root is None:
        raise config_error(
            [f"{shown_path} has nothing but comments in it"],
            "describe a VM in it: `vms: {web: {image: builtin:linux}}`",
        )
    if not isinstance(root, MappingNode):
        raise _no_mapping(root, shown_path)
    if "vms" not in root and any(_near(key) == "vms" for key in root):
        own = Problems()
        _with_known_keys(root, own)
        own.check()  # whatever else is found would only follow from it
    if any(key in TOP_KEYS or _near(key) for key in root):
        return _with_known_keys(root, problems)
    if not root:
        raise config_error([f"{root.home.value_place}: found an empty mapping"], "describe VMs under `vms:`")
    return _single_vm(root, path, problems)


def _no_mapping(root: Any, shown_path: str) -> ConfigError:
    kind = "a list" if isinstance(root, list) else f"just the text {shown(root)}"
    return config_error(
        [f"{shown_path}:1:1: found {kind}; allowed is a mapping with `vms:`, or with the keys of one VM"],
        "is it the right file?",
    )


def _with_known_keys(root: MappingNode, problems: Problems) -> MappingNode:
    for key in root:
        if key in TOP_KEYS:
            continue
        where = root.marks[key].key_place
        if key in VM_KEYS or key == "name":
            problems.add(
                where, key, "a key of a VM beside `vms:`", "put it under `defaults:` or under one VM"
            )
        else:
            problems.add(where, key, "unknown key", f"allowed are {listed(TOP_KEYS)}", _near(key))
    return root


def _near(key: str) -> str:
    """The top-level key that another key is likely to have been meant for, or nothing."""
    if key in VM_KEYS or key == "name":
        return ""
    return OTHER_WORDS[key] if OTHER_WORDS.get(key) in TOP_KEYS else nearest(key, TOP_KEYS)


def _single_vm(root: MappingNode, path: Path, problems: Problems) -> MappingNode:
    """A VM at top level becomes the only one under `vms:`."""
    vm = MappingNode(root.home)
    for key, value in root.items():
        if key != "name":
            vm.put(key, value, root.marks[key])
    name = root.get("name")
    mark = root.marks["name"] if name is not None else root.home
    if name is not None and not isinstance(name, str):
        problems.add(
            mark.value_place, "name", f"found {mark.text or shown(name)}", "allowed is a name, as text"
        )
        name = None
    vms = MappingNode(root.home)
    vms.put(name or path.stem, vm, _key_mark(mark, root.home))
    document = MappingNode(root.home)
    document.put("vms", vms, root.home)
    return document


def _key_mark(key: Mark, value: Mark) -> Mark:
    return Mark(key.source, key.line, key.column, value.line, value.column)


def check_vm_names(vms: MappingNode, problems: Problems) -> None:
    """VM names become parts of file names and fixture names."""
    for name, vm in vms.items():
        mark = vms.marks[name]
        if len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
            problems.add(
                mark.key_place,
                f"vms.{name[:80]}",
                "not a name for a VM",
                "allowed are up to 64 ASCII letters, digits, '_' and '-', not beginning with '-'",
            )
        if not isinstance(vm, MappingNode) and vm is not None:
            problems.add(
                mark.value_place, f"vms.{name[:80]}", f"found {shown(vm)}", "allowed is a mapping of its keys"
            )
        elif vm is not None and "name" in vm:
            problems.add(
                vm.marks["name"].key_place,
                f"vms.{name}.name",
                "the VM is named by its key under `vms:`",
                "remove it",
            )
