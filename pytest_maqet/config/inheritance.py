"""`defaults:` under every VM, `extends:` under one."""

from __future__ import annotations

from pytest_maqet.config.limits import DEFAULT_LIMITS, Limits
from pytest_maqet.config.merging import merged_mapping
from pytest_maqet.config.places import MappingNode
from pytest_maqet.config.problems import MOST_SHOWN, Problems, listed, nearest, shown
from pytest_maqet.config.weighing import Scales

#: A key of one VM that is not handed down: each VM has its own fixture.
_OWN = ("fixture", "extends")


def inherited(tree: MappingNode, problems: Problems, limits: Limits = DEFAULT_LIMITS) -> MappingNode:
    """All VMs with what they extend and the defaults under them; those with a fault are left out.

    The marks of the result are those of the tree's `vms:`. Each is weighed as soon as it is resolved: a few
    lines can hand down gigabytes. Raises ConfigError when they get too heavy.
    """
    vms = tree.get("vms")
    if not isinstance(vms, MappingNode):
        return MappingNode(tree.home)
    return _Inheritance(vms, tree.get("defaults"), problems, limits).resolved()


class _Inheritance:
    """Resolves each VM once, whatever the number of those that extend it."""

    def __init__(self, vms: MappingNode, defaults: object, problems: Problems, limits: Limits) -> None:
        self._vms = vms
        self._defaults = defaults if isinstance(defaults, MappingNode) else None
        self._problems = problems
        self._scales = Scales(limits)  # without the defaults, as long as those are not under a VM
        self._all_scales = Scales(limits)
        self._done: dict[str, MappingNode | None] = {}

    def resolved(self) -> MappingNode:
        """Every VM, the defaults last."""
        result = MappingNode(self._vms.home)
        for name in self._vms:
            vm = self._chain(name)
            if vm is None:
                continue
            if self._defaults is not None:
                vm = merged_mapping(self._without(self._defaults, _OWN), vm)
                self._all_scales.add(name, vm, self._vms.marks[name])
            result.put(name, self._without(vm, ("extends",)), self._vms.marks[name])
        return result

    def _chain(self, start: str) -> MappingNode | None:
        """A VM over all that it extends, without recursion: chains may be long."""
        chain: dict[str, None] = {}  # a list that is quick to look into
        name: str | None = start
        while name is not None and name not in self._done:
            if name in chain:
                names = list(chain)
                self._circle([*names[names.index(name) :], name])
                self._done.update(dict.fromkeys(chain))
                return None
            chain[name] = None
            name = self._base(name)
        base = self._done[name] if name is not None else None
        broken = name is not None and base is None
        for one in reversed(chain):
            base = None if broken else self._over(base, one)
            broken = base is None
            if base is not None:
                self._scales.add(one, base, self._vms.marks[one])
            self._done[one] = base
        return self._done[start]

    def _over(self, base: MappingNode | None, name: str) -> MappingNode | None:
        own = self._vms[name]
        if own is None:
            own = MappingNode(self._vms.marks[name])
        if not isinstance(own, MappingNode) or (own.get("extends") is not None and base is None):
            return None  # a fault, reported where it was found
        return own if base is None else merged_mapping(self._without(base, _OWN), own)

    def _base(self, name: str) -> str | None:
        """The VM that this one extends, None for none or a wrong one."""
        vm = self._vms[name]
        extends = vm.get("extends") if isinstance(vm, MappingNode) else None
        if extends is None:
            return None
        if isinstance(extends, str) and extends in self._vms:
            return extends
        mark = vm.marks["extends"]
        found = (
            f"there is no VM {extends!r}"
            if isinstance(extends, str)
            else f"found {mark.text or shown(extends)}"
        )
        looked_for = isinstance(extends, str) and len(self._problems) < MOST_SHOWN  # nobody reads the others
        near = nearest(extends, self._vms) if looked_for else ""
        self._problems.add(
            mark.value_place, f"vms.{name}.extends", found, f"there are {listed(self._vms)}", near
        )
        return None

    def _circle(self, names: list[str]) -> None:
        places = (f"{name} ({self._vms[name].marks['extends'].value_place})" for name in names[:-1])
        self._problems.add(
            self._vms[names[0]].marks["extends"].value_place,
            f"vms.{names[0]}.extends",
            f"a circle: {' -> '.join(names)}",
            f"written at {', '.join(places)}",
        )

    @staticmethod
    def _without(mapping: MappingNode, keys: tuple[str, ...]) -> MappingNode:
        if not any(key in mapping for key in keys):
            return mapping
        result = MappingNode(mapping.home)
        for key, value in mapping.items():
            if key not in keys:
                result.put(key, value, mapping.marks[key])
        return result
