"""Text of QEMU options: `head,key=value,key=value`, quoted so that QEMU reads back what was meant.

QEMU ends a value at a comma; a comma inside one is written twice (QEMU manual, "Invocation": "Any additional
comma in the value must be doubled"). Nothing else is special: `=` ends only the key, and spaces and newlines
go through as they are, because no shell is between us and QEMU.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

#: What a value of an option may be; True and False become `on` and `off`, None leaves the key out.
Value = str | int | bool | Path | None


class Option(NamedTuple):
    """One option of a command line: `name` without its dash, and its value, None for a bare flag."""

    name: str
    value: str | None = None


def escape(value: str) -> str:
    """`value` as it has to stand in an option."""
    return value.replace(",", ",,")


def option_text(head: str | None, values: Mapping[str, Value]) -> str:
    """`head,key=value,…` with every value quoted; keys keep their order."""
    parts = [] if head is None else [escape(head)]
    parts += [f"{key}={escape(_text(value))}" for key, value in values.items() if value is not None]
    return ",".join(parts)


def split_option(text: str) -> list[tuple[str | None, str]]:
    """The (key, value) pairs of an option's text, in order; the key is None where none was written.

    The reverse of `option_text`: doubled commas are single again.
    """
    pairs: list[tuple[str | None, str]] = []
    for part in _split_at_single_commas(text):
        key, equals, value = part.partition("=")
        pairs.append((key, value) if equals else (None, part))
    return pairs


def _split_at_single_commas(text: str) -> list[str]:
    marker = "\0"  # cannot occur in an argument of a process
    return [part.replace(marker, ",") for part in text.replace(",,", marker).split(",")]


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
