"""`fail_on:` in all its forms, resolved into patterns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from pytest_maqet.config.guest_models import FAILURE_PATTERNS, FailOn
from pytest_maqet.config.problems import nearest
from pytest_maqet.config.value_types import check_regex, fault, wrong

_NAMES = ", ".join(FAILURE_PATTERNS)
_WORDS = "allowed are a list of patterns, {only: [...]}, {without: [...]} and false"


def _patterns(value: Any) -> FailOn:
    if isinstance(value, FailOn):
        return value
    if value is False:
        return FailOn(patterns=())
    if value is True:
        return FailOn()
    if isinstance(value, (list, tuple)):
        return _resolved({**FAILURE_PATTERNS, **_listed(value, ())})
    if not isinstance(value, Mapping) or not value:
        raise wrong(value, _WORDS)
    for key in value:
        if key not in ("only", "without"):
            raise fault(f"unknown key {key!r}", _WORDS, at=(key,), near=nearest(key, ("only", "without")))
    chosen = _listed(value["only"], ("only",)) if value.get("only") is not None else dict(FAILURE_PATTERNS)
    for index, name in enumerate(_list(value.get("without") or [], ("without",))):
        if not isinstance(name, str) or name not in chosen:
            near = nearest(name, chosen) if isinstance(name, str) else ""
            raise fault(
                f"found {name!r}", f"allowed are {', '.join(chosen)}", at=("without", index), near=near
            )
        del chosen[name]
    return _resolved(chosen)


def _resolved(patterns: Mapping[str, str]) -> FailOn:
    return FailOn(patterns=tuple(patterns.items()))


def _list(value: Any, at: tuple[str | int, ...]) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise fault(f"found {value!r}", "allowed is a list", at=at)
    return list(value)


def _listed(value: Any, at: tuple[str | int, ...]) -> dict[str, str]:
    """The patterns of a list: names of built-in ones, regular expressions, and {name: regular expression}."""
    found: dict[str, str] = {}
    for index, item in enumerate(_list(value, at)):
        if isinstance(item, str) and item:
            found[item] = FAILURE_PATTERNS.get(item) or _compiled(item, (*at, index))
        elif (
            isinstance(item, Mapping)
            and len(item) == 1
            and all(isinstance(one, str) for one in item.values())
        ):
            [(name, pattern)] = item.items()
            found[str(name)] = _compiled(pattern, (*at, index, name))
        else:
            raise fault(
                f"found {item!r}",
                f"allowed are a regular expression, {{NAME: regular expression}}, and the names {_NAMES}",
                at=(*at, index),
            )
    return found


def _compiled(pattern: str, at: tuple[str | int, ...]) -> str:
    return check_regex(pattern, at)


_ITEM = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "minProperties": 1,
            "maxProperties": 1,
        },
    ]
}
_SCHEMA = {
    "anyOf": [
        {"type": "boolean"},
        {"type": "array", "items": _ITEM},
        {
            "type": "object",
            "properties": {
                "only": {"type": "array", "items": _ITEM},
                "without": {"type": "array", "items": {"type": "string"}},
            },
            "additionalProperties": False,
            "minProperties": 1,
        },
    ]
}
FailOnValue = Annotated[FailOn, BeforeValidator(_patterns), WithJsonSchema(_SCHEMA)]
