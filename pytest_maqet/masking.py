"""The one place that knows which texts are secrets; everything we show or write passes through `masked`.

Secrets are the values of environment variables that the configuration names (`secrets:`, `password_env`,
`send_env`). They are kept here and nowhere else, for this process only, so that a value is still masked
after a test has changed the variable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from pytest_maqet.secret_pieces import without_pieces

#: What stands in the place of a secret.
MASK = "***"
#: Shorter values are not masked: they occur everywhere.
SHORTEST = 4
#: Shorter values (`root`, `true`, `debian`) are also words, names of disks, parts of paths: that one is found
#: says nothing, and nothing is refused for it. One that nobody has called a secret is masked as a word only.
SHORTEST_TELLING = 8
#: A line of a secret with several lines is a secret of its own from so many characters on.
SHORTEST_LINE = 8
#: A part of base64 text that stands for a secret has at least so many characters.
_SHORTEST_ENCODED = 6
#: In values up to this length a line break between any two characters is overlooked: line editors and
#: base64 break lines.
_LONGEST_WRAPPED = 256
#: What goes before and after a word: not a letter or digit, not another part of a path or of a name.
_BEFORE_WORD, _AFTER_WORD = r"(?<![\w/])(?<!\w[.-])", r"(?![\w/]|[.-]\w)"
#: How far these two look.
_AROUND_WORD = 2


class _Finder(NamedTuple):
    """What finds secrets in all their forms; none is longer than `longest` bytes; made `of` these."""

    of: tuple[tuple[str, bool], ...]
    text: re.Pattern[str]
    bytes: re.Pattern[bytes]
    longest: int
    cut: tuple[str, ...]


class Masks:
    """Secrets by the names of their variables, and what finds them. Usable from any thread."""

    def __init__(self) -> None:
        #: By the names of variables, and by values: whether it is masked within words, too.
        self._names: dict[str, bool] = {}
        self._everywhere: dict[str, bool] = {}
        self._values: dict[str, str] = {}
        self._finder: _Finder | None = None

    def __repr__(self) -> str:
        return f"<Masks for {', '.join(self._names) or 'nothing'}>"

    def hide(self, names: Iterable[str], environ: Mapping[str, str], *, everywhere: bool = True) -> list[str]:
        """Mask the values of these variables from now on; returns those whose value is too short for that.

        Values of less than `SHORTEST_TELLING` characters are masked within words and paths only where they
        are to be `everywhere`. Unset and empty ones have nothing to hide; they are looked at again with each
        text.
        """
        too_short = []
        for name in names:
            self._names[name] = everywhere or self._names.get(name, False)
            if 0 < len(environ.get(name, "")) < SHORTEST:
                too_short.append(name)
            self._learn(name, environ)
        return too_short

    def masked(self, text: str) -> str:
        """The text with `***` for each secret in it."""
        finder = self._up_to_date()
        if finder is None:
            return text
        return without_pieces(finder.text.sub(MASK, text), finder.cut, MASK)

    def name_in(self, text: str) -> str | None:
        """The name of a variable whose value is in the text, in any form; None where there is none.

        Values of less than `SHORTEST_TELLING` characters are not looked for.
        """
        finder = self._up_to_date()
        if finder is None or not finder.text.search(text):
            return None
        telling = ((value, name) for value, name in self._values.items() if len(value) >= SHORTEST_TELLING)
        return next((name for value, name in telling if _pattern([value]).search(text)), None)

    def short(self) -> list[str]:
        """The names of variables whose value is masked within other words, although it is as short as one."""
        self._up_to_date()
        return sorted(
            name
            for value, name in self._values.items()
            if self._everywhere[value] and len(value) < SHORTEST_TELLING
        )

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
            # `held[:seen]` is written already: what follows may look back at it.
            held, seen = b"", 0
            for block in chain(blocks, (None,)):
                held += block or b""
                # What begins after this place may go on in the next block.
                cut = len(held) if block is None else max(seen, len(held) - finder.longest)
                for match in finder.bytes.finditer(held, seen):
                    if match.end() > cut:
                        cut = min(cut, match.start())
                        break
                    write.write(held[seen : match.start()] + MASK.encode())
                    seen = match.end()
                write.write(held[seen:cut])
                kept = max(0, cut - _AROUND_WORD)
                held, seen = held[kept:], cut - kept

    def _learn(self, name: str, environ: Mapping[str, str]) -> None:
        value = environ.get(name, "")
        if len(value) >= SHORTEST:
            self._values.setdefault(value, name)
            self._everywhere[value] = self._names[name] or self._everywhere.get(value, False)

    def _up_to_date(self) -> _Finder | None:
        for name in tuple(self._names):
            self._learn(name, os.environ)
        everywhere = tuple(self._everywhere.items())
        if not everywhere:
            return None
        finder = self._finder
        if finder is None or finder.of != everywhere:
            words = [value for value, inside in everywhere if not inside and len(value) < SHORTEST_TELLING]
            values = [value for value, _inside in everywhere if value not in words]
            text = _pattern(values, words)
            longest = 4 * max(len(value) for value, _ in everywhere) + 3 * _LONGEST_WRAPPED + _AROUND_WORD
            raw = re.compile(text.pattern.encode("utf-8", "surrogateescape"))
            finder = self._finder = _Finder(everywhere, text, raw, longest, tuple(_cut(values)))
        return finder


def _pattern(values: Iterable[str], words: Iterable[str] = ()) -> re.Pattern[str]:
    """What finds these values anywhere, and the `words` where they stand alone."""
    parts: dict[str, int] = {}
    for value in values:
        for form in _forms(value):
            wrapped = len(form) <= _LONGEST_WRAPPED
            parts[r"(?:\r?\n)?".join(map(re.escape, form)) if wrapped else re.escape(form)] = len(form)
    for word in words:
        for form in _forms(word):
            parts.setdefault(f"{_BEFORE_WORD}{re.escape(form)}{_AFTER_WORD}", len(form))
    return re.compile("|".join(sorted(parts, key=parts.__getitem__, reverse=True)))


def _cut(values: Iterable[str]) -> Iterator[str]:
    """The secrets of which somebody may show pieces only; those with several lines are cut into these."""
    for value in values:
        lines = value.splitlines()
        for line in lines if len(lines) > 1 else (value, repr(value)[1:-1]):
            if len(line) >= SHORTEST_TELLING and not line.startswith("-----"):
                yield line


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
