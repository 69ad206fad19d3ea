"""`--dist loadgroup`, which some versions of pytest and xdist do not do: told once, VMs are right anyway."""

from __future__ import annotations

from importlib.metadata import version

GROUPED = """
import os, pytest

@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(6))
def test_it({fixture}, number):
    pass
"""
HANGS = "maqet: with xdist * a --dist loadgroup run may hang for ever*pytest-xdist#1323*"


def test_it_is_told_once_where_it_does_not_group(suite):
    suite.tests(GROUPED.replace("{fixture}", "nano"))
    result = suite.run("-n2", "--dist=loadgroup", "-v")
    result.assert_outcomes(passed=6)
    groups = "@one" in result.stdout.str()
    if (version("pytest"), version("pytest-xdist")) == ("9.2.0", "3.8.0"):
        assert not groups, "these two are known not to group"
    told = [line for line in result.outlines if "pytest-xdist#1386" in line]
    assert len(told) == (0 if groups else 1), result.stdout.str()
    if tuple(map(int, version("pytest-xdist").split(".")[:2])) < (3, 9):
        result.stdout.fnmatch_lines([HANGS])
    assert suite.left_over() == []


def test_nothing_is_told_where_it_does_not_matter(suite):
    """Of tests without VMs, in a run that ends when a worker crashes."""
    suite.tests(GROUPED.replace("{fixture}", "request"))
    result = suite.run("-n1", "--dist=loadgroup", "--max-worker-restart=0")
    result.assert_outcomes(passed=6)
    result.stdout.no_fnmatch_line("*loadgroup*")
