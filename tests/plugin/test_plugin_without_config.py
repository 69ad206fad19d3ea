"""A run that has no configuration: it costs next to nothing, and says what is missing when it is missing."""

from __future__ import annotations

import json

import pytest

#: The plugin may load this many modules more than a run without it.
MOST_MODULES = 15

DUMP = """
import json, sys

def pytest_unconfigure(config):
    with open(config.rootpath / "modules.json", "w") as file:
        json.dump(sorted(sys.modules), file)
"""


def _modules(suite, *arguments: str) -> set[str]:
    suite.run("-q", *arguments).assert_outcomes(passed=1)
    return set(json.loads((suite.path / "modules.json").read_text()))


def test_few_modules_and_none_of_others_are_loaded(suite):
    (suite.path / "maqet.yaml").unlink()
    suite.conftest(DUMP)
    suite.tests("def test_nothing(): pass")
    more = _modules(suite) - _modules(suite, "-p", "no:maqet")
    assert len(more) <= MOST_MODULES, f"{len(more)} modules: {sorted(more)}"
    strange = {name for name in more if not name.startswith("pytest_maqet")}
    assert not strange, f"modules that are not ours: {strange}"


@pytest.mark.parametrize("fixture", ["vm", "vms", "maqet", "vm_factory", "session_vm", "vm_start_lock"])
def test_a_fixture_says_that_there_is_no_configuration(suite, fixture):
    (suite.path / "maqet.yaml").unlink()
    suite.tests(f"def test_it({fixture}): pass")
    result = suite.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*there is no maqet configuration*maqet.yaml*", "hint: *"])
    result.stdout.no_fnmatch_line("*session.py*")
    # pytest's short summary repeats whole messages where the variable CI is set; the report itself is
    # meant here.
    report = result.stdout.str().partition("short test summary info")[0]
    told = report.count("neither maqet.yaml nor maqet.yml")
    assert told == 1, f"it is told {told} times"


def test_markers_are_known_without_a_configuration(suite):
    (suite.path / "maqet.yaml").unlink()
    suite.tests("import pytest\n@pytest.mark.maqet('web')\ndef test_it(): pass")
    suite.run("--strict-markers", "-W", "error").assert_outcomes(passed=1)
    suite.run("--markers").stdout.fnmatch_lines(["@pytest.mark.maqet(*", "@pytest.mark.maqet_requires(*"])


def test_the_plugin_can_be_left_out(suite):
    suite.tests("def test_it(): pass")
    suite.run("-p", "no:maqet").assert_outcomes(passed=1)


def test_it_works_without_xdist(suite):
    suite.tests("def test_it(pytestconfig): assert not pytestconfig.pluginmanager.hasplugin('xdist')")
    suite.run("-p", "no:xdist", "-W", "error").assert_outcomes(passed=1)


def test_an_empty_file_is_one_usage_error(suite):
    suite.yaml("")
    suite.tests("def test_it(): pass")
    result = suite.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "Traceback" not in result.stderr.str()
