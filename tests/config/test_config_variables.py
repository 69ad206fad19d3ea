"""`${NAME}`, `${NAME:-default}` and `$$`."""

from __future__ import annotations

import pytest

from pytest_maqet.config.variables import VariableError, expand

ENVIRON = {"A": "one", "B": "two", "EMPTY": "", "DOLLAR": "${A}", "_x9": "odd"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("${A}", "one"),
        ("x${A}y${B}z", "xoneytwoz"),
        ("${A:-other}", "one"),
        ("${NONE:-other}", "other"),
        ("${NONE:-}", ""),
        ("${EMPTY}", ""),
        ("${EMPTY:-other}", "other"),
        ("${NONE:-${A}}", "one"),
        ("${NONE:-${NONE2:-${B}}}/x", "two/x"),
        ("${NONE:-a:-b}", "a:-b"),
        ("$$", "$"),
        ("$${A}", "${A}"),
        ("$$$$", "$$"),
        ("ready$", "ready$"),
        (r"^\$ $", r"^\$ $"),
        ("$A", "$A"),
        ("${DOLLAR}", "${A}"),
        ("${_x9}", "odd"),
        ("}{", "}{"),
    ],
)
def test_expanded(text: str, expected: str) -> None:
    assert expand(text, ENVIRON) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${NONE}", "environment variable 'NONE' is not set; set it, or write '${NONE:-default}'"),
        ("a ${A", "'${' at character 3 has no '}'; for '${' itself write '$${'"),
        ("${}", "'${}' is no variable"),
        ("${1A}", "'${1A}' is no variable"),
        ("${A b}", "'${A b}' is no variable"),
        ("${A-b}", "'${A-b}' is no variable"),
        ("${NONE:-${NONE2}}", "environment variable 'NONE2' is not set"),
        ("${N:-" * 20 + "x" + "}" * 20, "the default of 'N' is nested too deeply"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(VariableError) as caught:
        expand(text, ENVIRON)
    assert message in str(caught.value)
