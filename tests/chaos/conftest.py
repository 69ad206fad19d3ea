"""A home for victim suites; the suite itself is not collected here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chaos_home import Home

collect_ignore = ["suite"]


@pytest.fixture
def home() -> Iterator[Home]:
    made = Home()
    yield made
    made.remove()
