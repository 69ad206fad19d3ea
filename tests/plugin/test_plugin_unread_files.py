"""A configuration that lies at hand and is not read: not just "fixture 'web' not found", but why."""

from __future__ import annotations

import pytest

YAML = "vms: {web: {image: builtin:nano}}\n"


@pytest.fixture
def monorepo(suite):
    """Rootdir with a pytest.ini and no configuration; a project with one in a directory below."""
    (suite.path / "maqet.yaml").unlink()
    suite.file("pytest.ini", "[pytest]\n")
    suite.yaml(YAML, "project/maqet.yaml")
    suite.tests("def test_it(web): pass\n", "project/tests/test_it.py")
    return suite


def text_of(result: pytest.RunResult) -> str:
    return " ".join(result.stdout.str().split())


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "workers"])
@pytest.mark.parametrize("where", ["project", "."])
def test_a_fixture_that_is_not_found_names_the_file(monorepo, monkeypatch, workers, where):
    monkeypatch.chdir(monorepo.path / where)
    result = monorepo.run(*workers)
    result.assert_outcomes(errors=1)
    name = "maqet.yaml" if where == "project" else "project/maqet.yaml"
    text = text_of(result)
    assert f"{name} is not read (unless told otherwise, pytest-maqet reads maqet.yaml" in text, text
    cure = f"hint: run with --maqet-config {name}, or put maqet_config = project/maqet.yaml into pytest.ini"
    assert cure in text, text


def test_the_cure_cures(monorepo, monkeypatch):
    monkeypatch.chdir(monorepo.path / "project")
    monorepo.run("--maqet-config", "maqet.yaml").assert_outcomes(passed=1)
    monorepo.file("pytest.ini", "[pytest]\nmaqet_config = project/maqet.yaml\n")
    monorepo.run().assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("where", "arguments"),
    [
        ("project", []),
        (".", ["project"]),
        (".", ["project/tests/test_it.py::test_it"]),
        ("project/tests", [".."]),
    ],
)
def test_the_header_says_it_before_anything_fails(monorepo, monkeypatch, where, arguments):
    monkeypatch.chdir(monorepo.path / where)
    result = monorepo.run_here("--collect-only", *arguments)
    lines = [line for line in result.outlines if line.startswith("maqet: ")]
    assert len(lines) == 1, result.stdout.str()
    assert "maqet.yaml is not read" in lines[0]
    assert "--maqet-config" in lines[0]


def test_where_rootdir_is_below_the_directory_of_the_call(suite):
    suite.file("project/pytest.ini", "[pytest]\n")
    suite.tests("def test_it(web): pass\n", "project/test_it.py")
    result = suite.run("project")
    result.assert_outcomes(errors=1)
    assert "hint: run with --maqet-config maqet.yaml, or put maqet_config = ../maqet.yaml" in text_of(result)


def test_a_file_beside_the_tests_while_another_is_read(monorepo):
    monorepo.yaml("vms: {other: {image: builtin:nano}}\n")
    result = monorepo.run()
    result.assert_outcomes(errors=1)
    assert "project/maqet.yaml is not read" in text_of(result)
    result = monorepo.run("--maqet-config", "maqet.yaml")
    text = text_of(result)
    assert "(the command line option --maqet-config says to read maqet.yaml) hint: add" in text, text
    assert text.count("is not read") == 1, "who names files has chosen: no line in the header"


def test_vm_and_options_name_the_file_too(monorepo, monkeypatch):
    monorepo.tests("def test_it(vm): pass\n", "project/tests/test_it.py")
    result = monorepo.run()
    result.assert_outcomes(errors=1)
    assert "; project/maqet.yaml is not read hint: run with --maqet-config project/maqet.yaml" in text_of(
        result
    )
    monkeypatch.chdir(monorepo.path / "project")
    result = monorepo.run_here("--maqet-vm", "web")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*needs a configuration*; maqet.yaml is not read", "hint: run with *"])


def test_nothing_is_said_of_what_is_read_or_not_there(suite, monkeypatch):
    suite.file("pytest.ini", "[pytest]\n")
    suite.tests("def test_it(wbe): pass\n", "sub/test_it.py")
    monkeypatch.chdir(suite.path / "sub")
    result = suite.run()
    result.assert_outcomes(errors=1)
    assert "not read" not in result.stdout.str()
    (suite.path / "maqet.yaml").unlink()
    result = suite.run()
    result.assert_outcomes(errors=1)
    assert "maqet.yaml" not in result.stdout.str(), "there is no such file, and no VM was asked for"
