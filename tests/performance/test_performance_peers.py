"""The suites that the benchmark `peers` compares pass, each with one test; nothing is timed here."""

from __future__ import annotations

import labgrid_venv
import peer_suites
import pytest


@pytest.fixture
def bench():
    with peer_suites.bench() as bench:
        yield bench


@pytest.mark.parametrize("suite", ["raw", "maqet"])
def test_a_suite_passes(bench, suite):
    assert bench.run(suite, tests=1).tests, "one test has passed, and was timed"


def test_the_suite_of_labgrid_passes(bench):
    if not (python := labgrid_venv.python()):
        pytest.skip(f"there is no labgrid {labgrid_venv.LABGRID} here; `run.py peers` installs it")
    bench.pythons["labgrid"] = python
    assert bench.run("labgrid", tests=1).tests, "one test has passed, and was timed"


def test_a_suite_whose_tests_do_not_pass_is_an_error(bench):
    bench.env["PEER_KERNEL"] = "/nowhere"
    with pytest.raises(RuntimeError, match=r"0 of 1 tests passed(?s:.*)/nowhere"):
        bench.run("raw", tests=1)


def test_where_labgrid_cannot_be_installed_it_is_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("MAQET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    assert labgrid_venv.python() is None
    with pytest.raises(labgrid_venv.Unavailable, match=r"^labgrid \S+ cannot be installed: ERROR: .+$"):
        labgrid_venv.made()
