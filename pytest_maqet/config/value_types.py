"""Types of single values: text, numbers, sizes, seconds, regular expressions, names.

Each validator says what was found and what is allowed; where a value was written is added by `validation`.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from pytest_maqet.config.problems import shown

V = TypeVar("V")

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d{1,18})(?:\.(\d{1,6}))?\s*([KMGT]?)(?:i?B)?", re.IGNORECASE | re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
#: The longest regular expression, in characters; compiling one takes some 3 µs for each.
LONGEST_PATTERN = 10_000
#: The largest size, in bytes: QEMU's are 64-bit numbers, those of files have a sign.
LARGEST_SIZE = (1 << 63) - 1
#: No number of seconds is as large; Python makes no float of an integer beyond 1.8e308.
_FOREVER = 1e18
_SIZE_WORDS = "allowed is a size such as 256M, 1G or a number of bytes"


def fault(
    found: str, allowed: str = "", *, at: tuple[str | int, ...] = (), near: str = ""
) -> PydanticCustomError:
    """The error for a wrong value: what was found and what is allowed; `at` leads into the value."""
    return PydanticCustomError(
        "maqet", "{found}", {"found": found, "allowed": allowed, "at": at, "near": near}
    )


def wrong(value: object, allowed: str) -> PydanticCustomError:
    """The error for a value that can only be shown as it is."""
    return PydanticCustomError("maqet_value", "{allowed}", {"value": value, "allowed": allowed})


def parse_size(value: Any) -> int:
    """`256M`, `1.5G` or a number of bytes as bytes; K, M, G and T are powers of 1024."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_SIZE:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise wrong(value, _SIZE_WORDS)
    whole, fraction, unit = match.groups()
    size = float(f"0.{fraction}") * _UNITS[unit.upper()] if fraction else 0.0
    if size % 1:
        raise wrong(value, f"{_SIZE_WORDS}, and it has to be whole bytes")
    bytes_ = int(whole) * _UNITS[unit.upper()] + int(size)
    if bytes_ > LARGEST_SIZE:
        raise wrong(value, f"{_SIZE_WORDS}, below 8 EiB")
    return bytes_


def format_size(size: int) -> str:
    """A number of bytes in the largest unit that holds it exactly: `256M`, `1G`, `512`."""
    for unit in ("T", "G", "M", "K"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


def _whole_number(value: Any) -> Any:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)  # a variable is always text
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(value, "allowed is a whole number")
    return value


def _switch(value: Any) -> Any:
    if isinstance(value, str) and value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise wrong(value, "allowed are true and false")
    return value


def _seconds(value: Any) -> float:
    number: float | None = None
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = None
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value) if abs(value) < _FOREVER else None
    if number is None or not math.isfinite(number) or number < 0:
        raise wrong(value, "allowed is a number of seconds, such as 30 or 0.5")
    return number


def check_regex(value: str, at: tuple[str | int, ...] = ()) -> str:
    """A regular expression that compiles; it is kept as text. `at` leads to it in what is validated."""
    if len(value) > LONGEST_PATTERN:
        allowed = f"allowed are {LONGEST_PATTERN:,} characters"
        raise fault(f"the regular expression has {len(value):,} characters", allowed, at=at)
    try:
        with warnings.catch_warnings():  # "possible nested set" and its like: what it means will change
            warnings.simplefilter("error")
            re.compile(value, re.MULTILINE)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        raise fault(f"the regular expression {shown(value, 200)} is wrong: {error}", at=at) from None
    return value


def _check_regex(value: str) -> str:
    return check_regex(value)


def _check_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise wrong(
            value, "allowed are up to 64 letters, digits, '_', '-' and '.', not beginning with '-' or '.'"
        )
    return value


def _check_filled(value: str) -> str:
    if not value:
        raise fault("found an empty text", "leave the key out instead")
    if "\0" in value:
        raise wrong(value, "a NUL character cannot be passed to a program")
    return value


def _check_variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise wrong(value, "allowed is the name of an environment variable")
    return value


def _path(value: Any) -> Path:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str):
        raise wrong(value, "allowed is a path")
    _check_filled(value)
    return Path(value)


_SIZE_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*([KMGTkmgt]?([iI]?[bB])?)\s*$"},
        {"type": "integer", "minimum": 0},
    ]
}

#: Text with at least one character.
Text = Annotated[str, AfterValidator(_check_filled)]
#: A name that may become part of a file name or a QEMU id.
Name = Annotated[str, AfterValidator(_check_name)]
#: A path; made absolute before validation.
FilePath = Annotated[Path, BeforeValidator(_path), WithJsonSchema({"type": "string", "minLength": 1})]
#: A size in bytes.
Size = Annotated[int, BeforeValidator(parse_size), WithJsonSchema(_SIZE_SCHEMA)]
Number = Annotated[int, BeforeValidator(_whole_number)]
Switch = Annotated[bool, BeforeValidator(_switch)]
Seconds = Annotated[float, BeforeValidator(_seconds), WithJsonSchema({"type": "number", "minimum": 0})]
#: A regular expression, searched with re.MULTILINE.
Regex = Annotated[str, AfterValidator(_check_filled), AfterValidator(_check_regex)]
#: The name of an environment variable.
Variable = Annotated[str, AfterValidator(_check_variable)]


def _port(value: int) -> int:
    if not 1 <= value <= 65535:
        raise wrong(value, "allowed is a TCP port, 1 to 65535")
    return value


Port = Annotated[
    Number, AfterValidator(_port), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 65535})
]


def _freeze(value: Mapping[str, V]) -> Mapping[str, V]:
    return MappingProxyType(dict(value))


#: Put beside a `Mapping[str, …]` annotation: the mapping cannot be changed once validated.
FROZEN = (AfterValidator(_freeze), PlainSerializer(dict))
