"""docs/review-items.md: every item of the review is there, and what it names exists."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "review-items.md").read_text()
#: How many findings the review has of each weight.
FINDINGS = {"H": 7, "M": 9, "L": 13}


def test_every_item_has_its_row():
    wanted = [f"{weight}{number}" for weight, count in FINDINGS.items() for number in range(1, count + 1)]
    assert re.findall(r"^\| ([HML]\d+) ", PAGE, re.MULTILINE) == wanted


def test_every_row_says_what_holds_it():
    rows = re.findall(r"^\| (?!item |-)(.+) \| (.+) \| (.+) \|$", PAGE, re.MULTILINE)
    words = ("tests/", "lint:", "not yet", "review only")
    idle = [item for item, _rule, holder in rows if not any(word in holder for word in words)]
    assert len(rows) > sum(FINDINGS.values()), "the earlier fixes have rows too"
    assert not idle, f"nothing holds {idle}"


def test_every_test_it_names_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)
    assert named, "there are tests in the page"
    gone = [f"{file}::{test}" for file, test in named if not _exists(ROOT / file, test)]
    assert not gone, f"docs/review-items.md names what is not there: {', '.join(gone)}"


def test_every_benchmark_it_names_exists():
    named = {
        name
        for clause in re.findall(r"benchmarks? ((?:`\w+`(?:, | and )?)+)", PAGE)
        for name in re.findall(r"\w+", clause.replace(" and ", " "))
    }
    assert len(named) >= 4, f"only {named} were found in the page"
    figures = set(re.findall(r"<!-- figures: (\w+) -->", (ROOT / "docs" / "performance.md").read_text()))
    assert named <= figures, f"docs/performance.md has no figures of {named - figures}"


def test_the_limits_it_names_are_those_of_the_linter():
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    limits = {
        r"complexity at most (\d+)": lint["mccabe"]["max-complexity"],
        r"at most (\d+) statements": lint["pylint"]["max-statements"],
        r"(\d+) branches": lint["pylint"]["max-branches"],
    }
    for words, limit in limits.items():
        said = re.findall(words, PAGE)
        assert set(said) == {str(limit)}, f"{words}: the page says {said}, ruff is told {limit}"


def _exists(file: Path, test: str) -> bool:
    if not file.is_file():
        return False
    functions = {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)}
    return not test or test in functions
