"""All faults of a configuration, collected and shown together."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from pytest_maqet.errors import ConfigError

#: This many faults are shown; the rest is counted.
MOST_SHOWN = 50
#: After so many faults no more are looked for; nor after so many, the same ones found again counted.
MOST_KEPT = 1_000
MOST_FOUND = 5_000
#: The longest line about one fault, in characters; what it shows of the file may be a megabyte.
LONGEST_LINE = 2_000
#: A list of what is allowed is long from so many characters on.
LONG = 150
#: A word is compared with this many others.
MOST_COMPARED = 100


class Problems:
    """Faults found so far, one line each, in the order found and without repeats."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}
        self._count = 0
        self._spoilt: set[str] = set()
        self._seen: set[tuple[str, str]] = set()

    def __len__(self) -> int:
        """How many were found, repeats counted."""
        return self._count

    def add(self, where: str, key_path: str, found: str, allowed: str = "", suggestion: str = "") -> None:
        """One fault: `where: key.path: what was found; what is allowed; did you mean 'x'?`.

        A suggestion goes before a list that is so long that nobody would read to its end.

        Raises ConfigError with all of them when they are too many to go on.
        """
        self._count += 1
        if self._count >= MOST_FOUND and self._lines:
            raise config_error(tuple(self._lines), f"after {MOST_FOUND:,} findings no more were looked for")
        if where in self._spoilt:
            return
        found, allowed, key_path = _clipped(found), _clipped(allowed), _clipped(key_path, 200)
        if where[-1:].isdigit():  # the same spot of a file, reached through `defaults:` or `extends:` again
            if (where, found) in self._seen:
                return
            self._seen.add((where, found))
        parts = [found, allowed, f"did you mean {suggestion!r}?" if suggestion else ""]
        said = "; ".join(part for part in parts if part)
        if suggestion and len(allowed) > LONG:
            said = f"{found}; {parts[2]} {allowed}"
        self._lines.setdefault(": ".join(part for part in (where, key_path, said) if part))
        if len(self._lines) >= MOST_KEPT:
            raise config_error(tuple(self._lines), f"after {MOST_KEPT:,} problems no more were looked for")

    def spoil(self, where: str, key_path: str, found: str) -> None:
        """One fault after which everything else that is found at this place would only follow from it."""
        self.add(where, key_path, found)
        self._spoilt.add(where)

    def check(self) -> None:
        """Raise ConfigError with all of them, if there are any."""
        if self._lines:
            raise config_error(tuple(self._lines))


def config_error(lines: Sequence[str], hint: str | None = None) -> ConfigError:
    """The error that shows these faults; `problems` of it has all of them."""
    lines = [_clipped(line) for line in lines]
    if len(lines) == 1:
        return ConfigError(lines[0], problems=lines, hint=hint)
    shown = [f"the configuration has {len(lines)} problems:", *(f"  {line}" for line in lines[:MOST_SHOWN])]
    if len(lines) > MOST_SHOWN:
        shown.append(f"  … and {len(lines) - MOST_SHOWN} more")
    return ConfigError("\n".join(shown), problems=lines, hint=hint)


def nearest(word: str, known: Iterable[str]) -> str:
    """The one of `known` that looks most like `word`, or nothing when none does."""
    if len(word) > 100:
        return ""
    words = [one for one in known if abs(len(one) - len(word)) <= len(word)]
    if len(words) > MOST_COMPARED:  # comparing takes some 30 µs for each
        words = [one for one in words if one[:1].lower() == word[:1].lower()][:MOST_COMPARED]
    found = difflib.get_close_matches(word.lower(), sorted(words), n=1, cutoff=0.6)
    return found[0] if found else ""


def _clipped(text: str, most: int = LONGEST_LINE) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def listed(words: Iterable[str], most: int = 20) -> str:
    """Words for a message, cut when there are too many."""
    every = list(words)
    more = f", … ({len(every)} in all)" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def shown(value: object, most: int = 60) -> str:
    """A value as it may stand in a message, cut to `most` characters, without control characters."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python shows (sys.set_int_max_str_digits)
        text = f"a number of {value.bit_length():,} bits" if isinstance(value, int) else "something"
    return text if len(text) <= most else f"{text[: most - 1]}…"
