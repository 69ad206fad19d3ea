"""What a user sees of templates: clones by default, one boot for all workers, none in the second run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _cache(own_cache: Path) -> None:
    """Templates of other tests do not count here."""


def summary(result: pytest.RunResult) -> str:
    """The plugin's lines at the end of a run."""
    text = result.stdout.str()
    return text[text.index("= maqet =") :]


def test_two_tests_boot_once_and_the_second_run_boots_nothing(suite):
    suite.tests(
        """
        def test_a(nano): assert nano.started_by == "clone"
        def test_b(nano): assert nano.started_by == "clone"
        """
    )
    first = suite.run()
    first.assert_outcomes(passed=2)
    assert "made the template of nano" in summary(first)
    second = suite.run()
    second.assert_outcomes(passed=2)
    second.stdout.fnmatch_lines(["*1 template kept*", "2 VM starts: 2 cloned*none booted*"])


def test_one_boot_for_all_workers(suite):
    suite.tests(
        """
        import pytest
        @pytest.mark.parametrize("n", range(8))
        def test_it(nano, n): assert nano.started_by == "clone"
        """
    )
    result = suite.run("-n", "4")
    result.assert_outcomes(passed=8)
    text = summary(result)
    assert text.count("made the template of nano") == 1, text
    assert "8 VM starts: 8 cloned" in text


def test_vms_that_differ_in_their_scope_only_share_a_template(suite, own_cache):
    suite.tests("def test_a(nano, store): pass")  # store extends nano
    suite.run().assert_outcomes(passed=1)
    assert sum(path.is_symlink() for path in (own_cache / "templates").iterdir()) == 1


def test_two_runs_at_once_make_one_template(suite):
    suite.tests("def test_a(nano): pass")
    arguments = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    runs = [subprocess.Popen(arguments, cwd=suite.path, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    texts = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], texts
    assert sum("made the template" in text for text in texts) == 1, texts


@pytest.mark.parametrize("option", ["--maqet-templates=off", "--maqet-start=boot"])
def test_templates_can_be_switched_off(suite, own_cache, option):
    suite.tests("def test_a(nano): assert nano.started_by == 'boot'")
    result = suite.run(option)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*VMs boot (--maqet-*"])
    assert not list(own_cache.glob("templates/*"))


def test_rebuild_makes_it_anew_once_for_all_workers(suite):
    suite.tests(
        """
        import pytest
        @pytest.mark.parametrize("n", range(4))
        def test_it(nano, n): pass
        """
    )
    suite.run().assert_outcomes(passed=4)
    result = suite.run("--maqet-templates=rebuild", "-n", "2")
    result.assert_outcomes(passed=4)
    assert summary(result).count("made the template of nano") == 1


def test_the_yaml_goes_before_the_command_line(suite):
    suite.yaml("vms: {nano: {image: builtin:nano, memory: 16M, start: boot}}")
    suite.tests("def test_a(nano): assert nano.started_by == 'boot'")
    suite.run("--maqet-start=clone").assert_outcomes(passed=1)


def test_why_a_vm_was_booted_is_in_the_summary(suite):
    suite.yaml("vms: {nano: {image: builtin:nano, memory: 16M, arguments: [{m: 32M}]}}")
    suite.tests("def test_a(nano): pass\ndef test_b(nano): pass")
    result = suite.run()
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["nano was booted 2 times: the raw argument '-m 32M'*"])


def test_start_clone_on_what_cannot_be_is_an_error_with_the_reason(suite):
    suite.yaml("vms: {nano: {image: builtin:nano, memory: 16M, start: clone, arguments: [{m: 32M}]}}")
    suite.tests("def test_a(nano): pass")
    result = suite.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*NotSupported: nano cannot be started as a clone: the raw argument*"])
    assert "Traceback" not in result.stdout.str()


def test_a_template_stands_where_a_name_may(suite):
    suite.yaml("default: web\nvms: {web: {image: builtin:linux, memory: 256M}}")
    suite.tests(
        """
        import pytest

        def fill(vm):
            with open("filled", "a") as log: log.write("x")
            vm.run("echo row > /db")

        @pytest.fixture(scope="session")
        def db(maqet):
            return maqet.template("web", prepare=fill, key=["v1"])

        @pytest.mark.parametrize("n", range(2))
        def test_factory(vm_factory, db, n):
            vm = vm_factory(db)
            assert vm.run("cat /db; rm /db").stdout == "row\\n"

        def test_by_hand(maqet, db):
            with maqet.start(db) as vm:
                assert vm.run("cat /db").stdout == "row\\n"

        @pytest.fixture
        def vm_of_db(db, vm_factory): return vm_factory(db, scope="function")

        def test_frozen_by_the_test(web, vm_factory):
            web.run("echo mine > /mine")
            one, two = vm_factory(web.freeze()), vm_factory(web.freeze())
            assert one.run("cat /mine; rm /mine").stdout == two.run("cat /mine").stdout == "mine\\n"
            assert web.run("cat /mine").stdout == "mine\\n"
        """
    )
    suite.run("-n", "2", timeout=300).assert_outcomes(passed=4)
    assert (suite.path / "filled").read_text() == "x", "the template was prepared more than once"
    suite.run("-k", "factory", timeout=300).assert_outcomes(passed=2)
    assert (suite.path / "filled").read_text() == "x", "the next run prepared it again"


def test_a_marker_and_a_parameter_take_a_template(suite):
    suite.tests(
        """
        import pytest
        from pytest_maqet.errors import ConfigError

        TEMPLATES = []

        @pytest.fixture(scope="session", autouse=True)
        def made(maqet):
            TEMPLATES.append(maqet.template("nano"))

        def test_marker(request, maqet):
            request.node.add_marker(pytest.mark.maqet(TEMPLATES[0]))
            vm = request.getfixturevalue("vm")
            assert vm.started_by == "clone"

        def test_wrong(request):
            request.node.add_marker(pytest.mark.maqet(3))
            with pytest.raises(ConfigError, match="a VM's name or a template, got 3"):
                request.getfixturevalue("vm")
        """
    )
    suite.run().assert_outcomes(passed=2)


def test_stats_count_clones_and_templates(suite):
    suite.tests(
        """
        import json
        def test_a(nano): pass
        def test_b(nano, maqet):
            stats = maqet.stats()
            json.dump({key: stats[key] for key in ("clones", "boots", "pool_hits")}, open("stats", "w"))
            assert len(stats["templates"]) == 1 and stats["templates"][0]["vm"] == "nano"
        """
    )
    suite.run().assert_outcomes(passed=2)
    stats = json.loads((suite.path / "stats").read_text())
    assert (stats["clones"], stats["boots"]) == (2, 0)


def test_a_prepare_step_that_fails_is_told_with_its_number(suite):
    suite.yaml("vms: {web: {image: builtin:linux, memory: 256M, prepare: [{run: 'true'}, {run: 'exit 3'}]}}")
    suite.tests("def test_a(web): pass\ndef test_b(web): pass")
    result = suite.run(timeout=300)
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*step 2 of `prepare:` failed (run 'exit 3')*"])
    assert "is not started again" in result.stdout.str(), "the second test tried it again"


def test_collect_only_touches_no_template(suite, own_cache):
    suite.tests("def test_a(nano): pass")
    suite.run("--collect-only")
    assert not (own_cache / "templates").exists()
