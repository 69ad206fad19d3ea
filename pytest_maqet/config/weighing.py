"""How much all VMs together resolve to: told while they are resolved, so that refusing costs nothing."""

from __future__ import annotations

import re
from typing import Any

from pytest_maqet.config.limits import Limits
from pytest_maqet.config.places import MappingNode, Mark, SequenceNode
from pytest_maqet.config.problems import config_error

#: Keys of a VM whose texts are patterns, which cost more to compile than other texts to look at.
_PATTERN_KEYS = frozenset({"ready", "fail_on", "guest"})
#: A pattern weighs one value for so many characters.
_PATTERN_CHARACTERS = 2
#: A set of characters beyond Latin-1 in a pattern, in values: `[Ā-\uffff]` takes Python up to 8 ms.
_WIDE_SET = 1_500
_WIDE = re.compile(r"[^\x00-\xff]|\\[uUN]")
#: A path weighs one value for so many of its parts: each may have to be looked up on the disk.
_PATH_PARTS = 4


class Scales:
    """Weighs one VM after the other; what they share is looked at once."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # By identity; the node is kept with its weight, so that no other gets its place in memory.
        self._known: dict[tuple[int, bool], tuple[Any, int]] = {}
        self._devices = self._values = 0

    def add(self, name: str, vm: MappingNode, mark: Mark) -> None:
        """Take one VM more, inherited values included.

        Raises ConfigError when all of them together have too many devices or values.
        """
        limits = self._limits
        storage = vm.get("storage")
        self._devices += len(storage) if isinstance(storage, SequenceNode) else 0
        self._values += 1 + sum(1 + self._weight(value, key in _PATTERN_KEYS) for key, value in vm.items())
        if self._devices > limits.devices:
            raise config_error(
                [
                    f"{mark.key_place}: vms.{name}: more than {limits.devices:,} storage devices in the "
                    "whole configuration"
                ]
            )
        if self._values > limits.resolved_values:
            raise config_error(
                [
                    f"{mark.key_place}: vms.{name}: more than {limits.resolved_values:,} values in the whole "
                    "configuration (what is inherited counts for every VM, long patterns and paths more "
                    "than once)"
                ]
            )

    def _weight(self, node: Any, pattern: bool) -> int:  # noqa: FBT001 - private, and called for every value
        if isinstance(node, (MappingNode, SequenceNode)):
            known = self._known.get((id(node), pattern))
            if known is None:
                mapping = isinstance(node, MappingNode)
                weight = 1 + (len(node) if mapping else 0)
                for item in node.values() if isinstance(node, MappingNode) else node:
                    weight += self._weight(item, pattern)
                known = self._known[id(node), pattern] = (node, weight)
            return known[1]
        if not isinstance(node, str):
            return 1
        return 1 + (_pattern_weight(node) if pattern else node.count("/") // _PATH_PARTS)


def _pattern_weight(text: str) -> int:
    sets = text.count("[") if _WIDE.search(text) else 0
    return len(text) // _PATTERN_CHARACTERS + sets * _WIDE_SET
