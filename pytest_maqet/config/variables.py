"""`${NAME}`, `${NAME:-default}` and `$$` in a string.

They are put in after the file is parsed, so what a variable holds is always text and never YAML. A `$` before
anything else stands for itself: regular expressions end in one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NESTING = 8
#: What a text may become, in characters, where nobody says otherwise.
MOST = 1 << 20


class VariableError(ValueError):
    """A variable that cannot be put in; the message says which and why."""


def expand(text: str, environ: Mapping[str, str], most: int = MOST) -> str:
    """`text` with its variables put in; what a variable holds is not looked at again.

    A default holds when the variable is unset or empty, and may have variables itself.
    Raises VariableError for an unset variable without a default, for `${` that begins no variable, and when
    the text gets longer than `most` characters.
    """
    return _expand(text, environ, 0, most)


def _expand(text: str, environ: Mapping[str, str], depth: int, most: int) -> str:
    parts: list[str] = []
    size = len(text)
    position = 0
    while (dollar := text.find("$", position)) >= 0:
        parts.append(text[position:dollar])
        following = text[dollar + 1 : dollar + 2]
        if following == "{":
            end = _closing(text, dollar)
            value = _value(text[dollar + 2 : end], environ, depth, most)
            parts.append(value)
            size += len(value)
            if size > most + len(text):  # told before it is joined: a few letters may stand for gigabytes
                raise VariableError(f"with its variables put in, this text has over {most:,} characters")
            position = end + 1
        else:
            parts.append("$")
            position = dollar + (2 if following == "$" else 1)
    parts.append(text[position:])
    return "".join(parts)


def _closing(text: str, dollar: int) -> int:
    """Where the `}` of the `${` at `dollar` stands."""
    depth = 0
    position = dollar
    while position < len(text):
        if text.startswith("${", position):
            depth += 1
            position += 2
            continue
        if text[position] == "}":
            depth -= 1
            if depth == 0:
                return position
        position += 1
    raise VariableError(f"'${{' at character {dollar + 1} has no '}}'; for '${{' itself write '$${{'")


def _value(inside: str, environ: Mapping[str, str], depth: int, most: int) -> str:
    match = _NAME.match(inside)
    rest = inside[match.end() :] if match else inside
    if match is None or (rest and not rest.startswith(":-")):
        raise VariableError(
            f"'${{{inside[:40]}}}' is no variable; write '${{NAME}}' or '${{NAME:-default}}', "
            "and '$${' for '${' itself"
        )
    name = match[0]
    value = environ.get(name)
    if rest and not value:
        if depth >= _NESTING:
            raise VariableError(f"the default of '{name}' is nested too deeply")
        return _expand(rest[2:], environ, depth + 1, most)
    if value is None:
        raise VariableError(
            f"environment variable '{name}' is not set; set it, or write '${{{name}:-default}}'"
        )
    return value
