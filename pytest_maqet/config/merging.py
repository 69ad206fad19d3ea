"""One tree over another: mappings deep, `storage` by name, `arguments` by option, other lists replace.

Nothing is changed in place; what is not touched is shared. A null stays in the result: it hides what lies
under it, also when that comes later (from `extends:` or `defaults:`), and is taken out at the end.
"""

from __future__ import annotations

from typing import Any

from pytest_maqet.config.arguments import REPEATABLE_OPTIONS, option_of
from pytest_maqet.config.places import MappingNode, SequenceNode


def merged(under: Any, over: Any) -> Any:
    """`over` laid over `under`; for lists of a VM's keys see `merged_mapping`."""
    if isinstance(under, MappingNode) and isinstance(over, MappingNode):
        return merged_mapping(under, over)
    return over


def merged_mapping(under: MappingNode, over: MappingNode) -> MappingNode:
    """Two mappings as one: keys of both, those of `over` winning, and mappings in them merged likewise."""
    result = MappingNode(over.home)
    result.update(under)
    result.marks.update(under.marks)
    for key, value in over.items():
        mark = over.marks[key]
        if key not in under:
            result.put(key, value, mark)
            continue
        merge = _LISTS.get(key, merged)
        combined = merge(under[key], value)
        kept = mark if combined is value or not isinstance(value, MappingNode) else under.marks[key]
        result.put(key, combined, kept)
    return result


def _merged_storage(under: Any, over: Any) -> Any:
    """Devices with the same `name` are merged, new ones appended; the order is that of `under`."""
    if not isinstance(under, SequenceNode) or not isinstance(over, SequenceNode):
        return over
    result = SequenceNode(over.home)
    places: dict[Any, int] = {}
    for node in (under, over):
        for item, mark in zip(node, node.marks, strict=True):
            name = item.get("name") if isinstance(item, MappingNode) else None
            place = places.get(name) if node is over and isinstance(name, str) else None
            if place is None:
                result.put(item, mark)
                if isinstance(name, str) and node is under:
                    places.setdefault(name, len(result) - 1)
            else:
                result[place] = merged_mapping(result[place], item)
                result.marks[place] = mark
                del places[name]  # a name that `over` has twice is a fault, which must stay visible
    return result


def _merged_arguments(under: Any, over: Any) -> Any:
    """Repeatable options of both are kept; of an option that QEMU takes once the one of `over` stands."""
    if not isinstance(under, SequenceNode) or not isinstance(over, SequenceNode):
        return over
    replaced = {option_of(entry) for entry in over} - REPEATABLE_OPTIONS - {None}
    result = SequenceNode(over.home)
    for node in (under, over):
        for entry, mark in zip(node, node.marks, strict=True):
            if node is over or option_of(entry) not in replaced:
                result.put(entry, mark)
    return result


_LISTS = {"storage": _merged_storage, "arguments": _merged_arguments}
