"""docs/xdist.md: what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "xdist.md").read_text()


def test_the_tests_it_names_exist():
    named = set(re.findall(r"(test_plugin_\w+\.py)", PAGE))
    assert named, "the page says what holds it"
    assert not {name for name in named if not (ROOT / "tests" / "plugin" / name).is_file()}


def test_the_readme_leads_there():
    assert "(docs/xdist.md)" in (ROOT / "README.md").read_text()
