"""What a plain scalar means: YAML 1.1 as PyYAML's safe loader has it, but for dates, which stay text.

The answer is looked up once for each different text: configurations repeat themselves, and PyYAML's
resolver tries regular expressions in Python for every scalar.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from yaml.constructor import ConstructorError, SafeConstructor
from yaml.nodes import ScalarNode
from yaml.resolver import Resolver

#: A number that is written with more characters is text: making it costs more than its length (`1:1:1:…`),
#: and Python does not show it.
LONGEST_NUMBER = 400

_PREFIX = "tag:yaml.org,2002:"
#: Tags whose values have no other meaning than the text they are written as.
_TEXT = {f"{_PREFIX}{name}" for name in ("str", "timestamp", "value", "merge")}
#: Explicit tags that may stand before a scalar or a collection.
SCALAR_TAGS = frozenset(f"{_PREFIX}{name}" for name in ("str", "int", "float", "bool", "null"))
COLLECTION_TAGS = frozenset(f"{_PREFIX}{name}" for name in ("map", "seq"))

_RESOLVER = Resolver()
#: First characters of scalars that may be something else than text.
_NOT_ONLY_TEXT = frozenset(_RESOLVER.yaml_implicit_resolvers)
_CONSTRUCTOR = SafeConstructor()
_MAKERS = {
    f"{_PREFIX}int": _CONSTRUCTOR.construct_yaml_int,
    f"{_PREFIX}float": _CONSTRUCTOR.construct_yaml_float,
    f"{_PREFIX}bool": _CONSTRUCTOR.construct_yaml_bool,
    f"{_PREFIX}null": _CONSTRUCTOR.construct_yaml_null,
}


def plain_scalar(text: str) -> Any:
    """The value of an unquoted scalar without a tag: str, int, float, bool or None."""
    return _resolved(text) if text[:1] in _NOT_ONLY_TEXT and len(text) <= LONGEST_NUMBER else text


@lru_cache(maxsize=16_384)
def _resolved(text: str) -> Any:
    tag = _RESOLVER.resolve(  # type: ignore[no-untyped-call]
        ScalarNode, text, (True, False)
    )
    if tag in _TEXT:
        return text
    try:
        return tagged_scalar(tag, text)
    except ValueError:  # "0b" and its like match PyYAML's pattern for numbers and are none
        return text


def tagged_scalar(tag: str, text: str) -> Any:
    """The value of a scalar with an explicit tag of `SCALAR_TAGS`.

    Raises ValueError when the text is not of that type.
    """
    if tag in _TEXT:
        return text
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"{text[:20]!r}… is no {tag.removeprefix(_PREFIX)}: it has {len(text):,} characters")
    try:
        return _MAKERS[tag](ScalarNode(tag, text))
    except (ConstructorError, ValueError, KeyError, IndexError, OverflowError) as error:
        raise ValueError(f"{text!r} is no {tag.removeprefix(_PREFIX)}") from error
