"""The one place that knows which texts are secrets; everything we show or write passes through `masked`.

Secrets are the values of environment variables that the configuration names (`secrets:`, `password_env`,
`send_env`). They are kept here and nowhere else, for this process only, so that a value is still masked
after a test has changed the variable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

#: What stands in the place of a secret.
MASK = "***"
#: Shorter values are not masked: they occur everywhere.
SHORTEST = 4
#: Shorter values (`root`, `true`, `debian`) are masked, but are also words, names of disks, parts of paths:
#: that one is found says nothing, and nothing is refused for it.
SHORTEST_TELLING = 8
#: A line of a secret with several lines is a secret of its own from so many characters on.
SHORTEST_LINE = 8
#: A part of base64 text that stands for a secret has at least so many characters.
_SHORTEST_ENCODED = 6
#: In values up to this length a line break between any two characters is overlooked: line editors and
#: base64 break lines.
_LONGEST_WRAPPED = 256


class _Finder(NamedTuple):
    """What finds `values` secrets in all their forms; none is longer than `longest` bytes."""

    values: int
    text: re.Pattern[str]
    bytes: re.Pattern[bytes]
    longest: int


class Masks:
    """Secrets by the names of their variables, and what finds them. Usable from any thread."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self._values: dict[str, str] = {}
        self._finder: _Finder | None = None

    def __repr__(self) -> str:
        return f"<Masks for {', '.join(self._names) or 'nothing'}>"

    def hide(self, names: Iterable[str], environ: Mapping[str, str]) -> list[str]:
        """Mask the values of these variables from now on; returns those whose value is too short for that.

        Unset and empty ones have nothing to hide; they are looked at again with each text.
        """
        too_short = []
        for name in names:
            self._names[name] = None
            if 0 < len(environ.get(name, "")) < SHORTEST:
                too_short.append(name)
            self._learn(name, environ)
        return too_short

    def masked(self, text: str) -> str:
        """The text with `***` for each secret in it."""
        finder = self._up_to_date()
        return finder.text.sub(MASK, text) if finder is not None else text

    def name_in(self, text: str) -> str | None:
        """The name of a variable whose value is in the text, in any form; None where there is none.

        Values of less than `SHORTEST_TELLING` characters are not looked for.
        """
        finder = self._up_to_date()
        if finder is None or not finder.text.search(text):
            return None
        telling = ((value, name) for value, name in self._values.items() if len(value) >= SHORTEST_TELLING)
        return next((name for value, name in telling if _pattern([value]).search(text)), None)

    def names(self) -> frozenset[str]:
        """The names of all variables that hold secrets."""
        return frozenset(self._names)

    def copy(self, blocks: Iterable[bytes], target: Path) -> None:
        """Write a file, of any size, with `***` for each secret in it. Raises OSError."""
        finder = self._up_to_date()
        with target.open("wb") as write:
            if finder is None:
                write.writelines(blocks)
                return
            held = b""
            for block in blocks:
                held += block
                # What begins after this place may go on in the next block.
                cut = max(0, len(held) - finder.longest)
                for match in finder.bytes.finditer(held, max(0, cut - finder.longest)):
                    if match.start() < cut < match.end():
                        cut = match.start()
                write.write(finder.bytes.sub(MASK.encode(), held[:cut]))
                held = held[cut:]
            write.write(finder.bytes.sub(MASK.encode(), held))

    def _learn(self, name: str, environ: Mapping[str, str]) -> None:
        value = environ.get(name, "")
        if len(value) >= SHORTEST:
            self._values.setdefault(value, name)

    def _up_to_date(self) -> _Finder | None:
        for name in tuple(self._names):
            self._learn(name, os.environ)
        values = tuple(self._values)
        if not values:
            return None
        finder = self._finder
        if finder is None or finder.values != len(values):
            text = _pattern(values)
            longest = 4 * max(map(len, values)) + 3 * _LONGEST_WRAPPED
            raw = re.compile(text.pattern.encode("utf-8", "surrogateescape"))
            finder = self._finder = _Finder(len(values), text, raw, longest)
        return finder


def _pattern(values: Iterable[str]) -> re.Pattern[str]:
    parts: dict[str, None] = {}
    for value in values:
        for form in _forms(value):
            wrapped = len(form) <= _LONGEST_WRAPPED
            parts[r"(?:\r?\n)?".join(map(re.escape, form)) if wrapped else re.escape(form)] = None
    return re.compile("|".join(sorted(parts, key=len, reverse=True)))


def _forms(value: str) -> Iterator[str]:
    """The value as it is, and as it stands in JSON, Python, URLs, HTML, shells, QEMU options, hex, base64."""
    import html  # here, because a run without secrets needs none of these
    import json
    import shlex
    from urllib.parse import quote, quote_plus

    yield from (value, value.replace("\n", "\r\n"), value.replace(",", ",,"))
    yield from (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1])
    raw = os.fsencode(value)
    for quoted in (quote(raw), quote(raw, safe=""), quote_plus(raw)):
        yield from (quoted, re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), quoted))
    yield from (html.escape(value), html.escape(value, quote=False))
    yield from (shlex.quote(value).strip("'"), re.sub(r"([^\w@%+=:,./\n-])", r"\\\1", value))
    yield from (raw.hex(), raw.hex().upper())
    for encoded in _encoded(raw):
        yield from (encoded, encoded.replace("+", "-").replace("/", "_"))
    lines = [line.strip() for line in value.splitlines()]
    if len(lines) > 1:
        for line in lines:
            if len(line) >= SHORTEST_LINE and not line.startswith("-----"):  # "-----BEGIN …" is no secret
                yield line


def _encoded(raw: bytes) -> Iterator[str]:
    """What base64 makes of the bytes wherever they stand: the same in every neighbourhood."""
    import base64

    for before in range(3):
        text = base64.b64encode(bytes(before) + raw).decode()
        part = text[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        if len(part) >= _SHORTEST_ENCODED:
            yield part


#: The secrets of this process.
MASKS = Masks()


def masked(text: str) -> str:
    """A text as it may leave us: `***` for each secret in it."""
    return MASKS.masked(text)


def masked_data(value: Any) -> Any:
    """Plain data (dicts, lists, tuples, scalars) with every text in it masked, keys left as they are."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {key: masked_data(item) for key, item in value.items()}
    if isinstance(value, list):
        return [masked_data(item) for item in value]
    return tuple(masked_data(item) for item in value) if type(value) is tuple else value
