"""Pieces of a secret that whoever showed it has cut: pytest shortens long values and skips what is alike.

`'ghp_Xk3vQ9pTz...aB4cD5eF6gH7'` is most of a token, and no search for the token finds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

#: A piece beside the dots of something shortened is masked from so many characters on.
SHORTEST_AT_DOTS = 6
#: A piece that stands anywhere is masked from so many characters on: fewer may be there by chance.
SHORTEST_ANYWHERE = 16
#: Half of that: every piece of `SHORTEST_ANYWHERE` characters holds one that begins at a multiple of this.
_STEP = SHORTEST_ANYWHERE // 2
_DOTS = re.compile(r"\.\.\.|…")


def without_pieces(text: str, secrets: Iterable[str], mask: str) -> str:
    """The text with `mask` for each piece of one of these secrets, which are not in it as a whole."""
    dots = [match.span() for match in _DOTS.finditer(text)]
    spans: list[tuple[int, int]] = []
    for secret in secrets:
        spans += _anywhere(text, secret)
        spans += _at_dots(text, secret, dots)
    shown, at = [], 0
    for start, end in sorted(spans):
        if start >= at:
            shown += [text[at:start], mask]
        at = max(at, end)
    return "".join([*shown, text[at:]]) if spans else text


def _anywhere(text: str, secret: str) -> Iterator[tuple[int, int]]:
    for at in range(0, len(secret) - _STEP + 1, _STEP):
        found = -1
        while (found := text.find(secret[at : at + _STEP], found + 1)) >= 0:
            start = found - _alike_before(text, found, secret, at)
            end = found + _alike_after(text, found, secret, at)
            if end - start >= SHORTEST_ANYWHERE:
                yield start, end


def _at_dots(text: str, secret: str, dots: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for start, end in dots:
        head = text[max(0, start - SHORTEST_AT_DOTS) : start]
        if len(head) == SHORTEST_AT_DOTS and (at := secret.find(head)) >= 0:
            yield start - _alike_before(text, start, secret, at + SHORTEST_AT_DOTS), start
        tail = text[end : end + SHORTEST_AT_DOTS]
        if len(tail) == SHORTEST_AT_DOTS and (at := secret.find(tail)) >= 0:
            yield end, end + _alike_after(text, end, secret, at)


def _alike_before(text: str, here: int, secret: str, at: int) -> int:
    """How many characters before `here` are those of the secret before `at`."""
    count = 0
    while count < min(here, at) and text[here - count - 1] == secret[at - count - 1]:
        count += 1
    return count


def _alike_after(text: str, here: int, secret: str, at: int) -> int:
    """How many characters from `here` on are those of the secret from `at` on."""
    count, most = 0, min(len(text) - here, len(secret) - at)
    while count < most and text[here + count] == secret[at + count]:
        count += 1
    return count
