"""Prepared data into a `VmConfig`, and pydantic's findings into lines that name the place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pytest_maqet.config.documents import OTHER_WORDS, VM_KEYS
from pytest_maqet.config.places import MappingNode, Mark, SequenceNode
from pytest_maqet.config.preparation import Preparation, fixtures_in, key_path
from pytest_maqet.config.problems import Problems, listed, nearest, shown
from pytest_maqet.config.vm_model import Origin, VmConfig

Location = tuple[str | int, ...]


def validated(vm: MappingNode, mark: Mark, preparation: Preparation, problems: Problems) -> VmConfig | None:
    """The VM's configuration, None when it has faults, which are added to `problems`.

    Keys that wait for the value of a fixture have their defaults; all others are validated.
    """
    before = len(problems)
    data = preparation.prepared(vm)
    waiting = preparation.references
    config: VmConfig | None = None
    try:
        config = VmConfig.model_validate(data)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            if details["type"] == "default_factory_not_called":
                continue  # follows from another fault in the same model
            if details["type"] == "extra_forbidden" or not any(
                _concerns(details["loc"], at) for at in waiting
            ):
                _Finding(details, vm, mark, preparation.name).report(problems)
    if len(problems) > before:
        return None
    if config is None or waiting:
        config = _validated_without(data, {at[0] for at in waiting})
    config._open_fixtures = fixtures_in(vm) if waiting else ()  # noqa: SLF001 - not handed out yet
    line = mark.key_line + 1 if mark.source.is_file else 0
    config._origin = Origin(mark.source.name, line)  # noqa: SLF001 - not handed out yet
    return config


def _validated_without(data: dict[str, Any], open_keys: set[str | int]) -> VmConfig:
    """The configuration as far as it is known: without open keys, and without what needs those."""
    known = {key: value for key, value in data.items() if key not in open_keys}
    while True:
        try:
            return VmConfig.model_validate(known)
        except ValidationError as error:
            for details in error.errors(include_url=False):
                at = (*details["loc"], *(details.get("ctx") or {}).get("at", ()))
                if not at or known.pop(str(at[0]), None) is None:
                    raise


def _concerns(loc: Location, at: Location) -> bool:
    """Whether a fault at `loc` may come from the open value at `at`: in it, or about what it is part of."""
    known = tuple(step for step in loc if step in at)
    return loc[: len(at)] == at or at[: len(loc)] == loc or known == at


def _has(node: Any, step: str | int) -> bool:
    if isinstance(node, MappingNode):
        return isinstance(step, str) and step in node
    return isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node)


class _Finding:
    """One of pydantic's findings."""

    def __init__(self, details: ErrorDetails, vm: MappingNode, mark: Mark, name: str) -> None:
        self._type = details["type"]
        self._context: dict[str, Any] = dict(details.get("ctx") or {})
        self._input = details.get("input")
        self._message = details["msg"]
        self._loc = (*details["loc"], *self._context.get("at", ()))
        self._name = name
        self._mark = mark
        self._at: Location = ()
        self._node: Any = vm
        self._walk()

    def _walk(self) -> None:
        """Go as far into the tree as the location leads; steps that are not in it are pydantic's own."""
        for step in self._loc:
            if _has(self._node, step):
                self._mark, self._node = self._node.marks[step], self._node[step]
                self._at = (*self._at, step)

    def report(self, problems: Problems) -> None:
        """Add it to `problems`, in our words."""
        words = _WORDS.get(self._type, _Finding._other)
        found, allowed, near = words(self)
        of_key = self._type == "extra_forbidden"
        where = self._mark.key_place if of_key else self._mark.value_place
        at = (*self._at, str(self._loc[-1])) if self._type == "missing" else self._at
        problems.add(where, key_path(self._name, at), found, allowed, near)

    # -- words for each type of finding: found, allowed, suggestion ----------------------------------------

    def _fault(self) -> tuple[str, str, str]:
        return str(self._context["found"]), str(self._context["allowed"]), str(self._context["near"])

    def _wrong(self) -> tuple[str, str, str]:
        return self._found(self._context["value"]), str(self._context["allowed"]), ""

    def _unknown_key(self) -> tuple[str, str, str]:
        model = _model_at(self._loc[:-1])
        known = VM_KEYS if model is VmConfig else tuple(model.model_fields) if model is not None else ()
        key = str(self._loc[-1])
        near = OTHER_WORDS.get(key, "") if OTHER_WORDS.get(key) in known else nearest(key, known)
        return "unknown key", f"allowed are {listed(known, 50)}", near

    def _missing(self) -> tuple[str, str, str]:
        return f"the key {self._loc[-1]!r} is missing", "", ""

    def _not_text(self) -> tuple[str, str, str]:
        text = self._mark.text
        if text is not None and text.strip():
            return self._found(self._input), f'allowed is text: write it in quotes, "{text}"', ""
        return self._found(self._input), "allowed is text", ""

    def _literal(self) -> tuple[str, str, str]:
        known = re.findall(r"'([^']*)'", str(self._context.get("expected", "")))
        near = nearest(self._input, known) if isinstance(self._input, str) else ""
        if self._mark.text in known:  # `vga: off` where "off" is a word
            return self._found(self._input), f'write it in quotes, "{self._mark.text}"', ""
        return (
            self._found(self._input),
            f"allowed are {listed(known)}" if len(known) > 1 else f"allowed is {known[0]}",
            near,
        )

    def _other(self) -> tuple[str, str, str]:
        allowed = _ALLOWED.get(self._type)
        if allowed is None:
            allowed = f"allowed: {self._message[0].lower()}{self._message[1:]}"
        return self._found(self._input), allowed.format(**self._context), ""

    def _found(self, value: Any) -> str:
        text = self._mark.text
        if text is not None and not isinstance(self._node, (str, dict, list)):
            as_read = _as_yaml(self._node)
            return f"found {text or 'nothing'}" + (
                f", which YAML reads as {as_read}" if as_read != text else ""
            )
        if isinstance(value, dict):
            return "found a mapping"
        if isinstance(value, (list, tuple)):
            return "found a list"
        return f"found {shown(value)}" + ("" if isinstance(value, str) else f" ({type(value).__name__})")


def _as_yaml(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


_WORDS: dict[str, Callable[[_Finding], tuple[str, str, str]]] = {
    "maqet": _Finding._fault,  # noqa: SLF001
    "maqet_value": _Finding._wrong,  # noqa: SLF001
    "extra_forbidden": _Finding._unknown_key,  # noqa: SLF001
    "missing": _Finding._missing,  # noqa: SLF001
    "string_type": _Finding._not_text,  # noqa: SLF001
    "literal_error": _Finding._literal,  # noqa: SLF001
}
_ALLOWED = {
    "tuple_type": "allowed is a list",
    "model_type": "allowed is a mapping",
    "model_attributes_type": "allowed is a mapping",
    "mapping_type": "allowed is a mapping",
    "dict_type": "allowed is a mapping",
    "greater_than_equal": "allowed is {ge} or more",
    "less_than_equal": "allowed is {le} or less",
}


def _model_at(loc: Location) -> type[BaseModel] | None:
    """The model that has the keys at a location, by the annotations on the way."""
    model: type[BaseModel] | None = VmConfig
    for step in loc:
        if isinstance(step, int) or model is None or step not in model.model_fields:
            continue
        model = next(_models_in(model.model_fields[step].annotation), None)
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
