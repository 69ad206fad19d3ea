"""How much all VMs together resolve to: told before anything is resolved, so that refusing costs nothing."""

from __future__ import annotations

from typing import Any

from pytest_maqet.config.limits import Limits
from pytest_maqet.config.places import MappingNode, SequenceNode
from pytest_maqet.config.problems import config_error


def check_weight(vms: MappingNode, limits: Limits) -> None:
    """Raise ConfigError when the VMs have too many devices or values, inherited ones counted for each VM.

    What VMs share is looked at once.
    """
    known: dict[int, int] = {}
    devices = values = 0
    for name, vm in vms.items():
        storage = vm.get("storage")
        devices += len(storage) if isinstance(storage, SequenceNode) else 0
        values += _weight(vm, known)
        where = f"{vms.marks[name].key_place}: vms.{name}"
        if devices > limits.devices:
            raise config_error(
                [f"{where}: more than {limits.devices:,} storage devices in the whole configuration"]
            )
        if values > limits.resolved_values:
            raise config_error(
                [
                    f"{where}: more than {limits.resolved_values:,} values in the whole configuration "
                    "(what is inherited counts for every VM)"
                ]
            )


def _weight(node: Any, known: dict[int, int]) -> int:
    if not isinstance(node, (MappingNode, SequenceNode)):
        return 1
    if id(node) not in known:  # the tree keeps all of them alive, so no id is used twice
        items = node.values() if isinstance(node, MappingNode) else node
        known[id(node)] = 1 + sum(_weight(item, known) for item in items)
    return known[id(node)]
