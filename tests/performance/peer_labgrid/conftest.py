"""A fresh machine for each test, by labgrid: power off, power on, shell."""

from __future__ import annotations

import pytest


@pytest.fixture
def shell(target, strategy):
    strategy.transition("off")
    strategy.transition("shell")
    yield target.get_driver("ShellDriver")
    strategy.transition("off")
