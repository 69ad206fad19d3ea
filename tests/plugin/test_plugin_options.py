"""Options, ini keys and environment variables: one name, one meaning, one error for a wrong value."""

from __future__ import annotations

import pytest

SHOW = """
from pytest_maqet.session import SESSION

def test_show(pytestconfig):
    settings = pytestconfig.stash[SESSION].settings
    print("SETTINGS", settings)
"""


@pytest.mark.parametrize(
    ("option", "value", "shown"),
    [
        ("accel", "tcg", "accel='tcg'"),
        ("start", "boot", "start='boot'"),
        ("templates", "off", "templates='off'"),
        ("timeout_scale", "2.5", "timeout_scale=2.5"),
        ("timeout_scale", "auto", "timeout_scale=None"),
        ("skips", "fail", "skips='fail'"),
        ("max_memory", "2G", "max_memory=2147483648"),
        ("max_memory", "auto", "max_memory=None"),
        ("durations", "3", "durations=3"),
        ("vm", "store", "vm=('store',)"),
        ("set", "vms.nano.memory=32M", "set=('vms.nano.memory=32M',)"),
    ],
)
@pytest.mark.parametrize("way", ["option", "ini", "environment"])
def test_an_option_is_an_ini_key_and_a_variable(suite, monkeypatch, option, value, shown, way):
    suite.tests(SHOW)
    arguments = ["-s", "--maqet-templates=auto"] if option != "templates" else ["-s"]
    if way == "option":
        arguments.append(f"--maqet-{option.replace('_', '-')}={value}")
    elif way == "ini":
        suite.file("pytest.ini", f"[pytest]\nmaqet_{option} = {value}\n")
    else:
        monkeypatch.setenv(f"MAQET_{option.upper()}", value)
    result = suite.run_here(*arguments)
    assert result.ret == 0, f"{option} by {way} was refused"
    assert shown in result.stdout.str(), f"{option} by {way} did not arrive"


def test_the_command_line_wins_over_the_environment_and_that_over_the_ini_file(suite, monkeypatch):
    suite.tests(SHOW)
    suite.file("pytest.ini", "[pytest]\nmaqet_durations = 1\nmaqet_skips = fail\nmaqet_start = boot\n")
    monkeypatch.setenv("MAQET_DURATIONS", "2")
    monkeypatch.setenv("MAQET_SKIPS", "allow")
    result = suite.run_here("-s", "--maqet-durations=3")
    result.stdout.fnmatch_lines(["*start='boot'*skips='allow'*durations=3*"])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--maqet-accel=xen", "*--maqet-accel: xen (from the command line*) is not one of auto, kvm*"),
        ("--maqet-timeout-scale=0", "*--maqet-timeout-scale: 0 *is not `auto` or a number above 0*"),
        ("--maqet-timeout-scale=soon", "*--maqet-timeout-scale: soon*"),
        ("--maqet-durations=many", "*--maqet-durations: many*whole number*"),
        ("--maqet-start=fast", "*--maqet-start*fast*is not one of auto, boot, clone*"),
        ("--maqet-templates=on", "*--maqet-templates*on*is not one of auto, off, rebuild*"),
        ("--maqet-templates-size=many", "*--maqet-templates-size*many*is not a size such as 20G*"),
        ("--maqet-keep=failed", "*--maqet-keep=failed is not supported yet*"),
        ("--maqet-attach=web=ssh://root@host", "*--maqet-attach=web=ssh://root@host is not supported yet*"),
        ("--maqet-max-memory=much", "*--maqet-max-memory: much*is not `auto` or a size such as 8G*"),
        ("--maqet-live", "*--maqet-live* is not supported yet*"),
        ("--maqet-trace=t.json", "*--maqet-trace=t.json is not supported yet*"),
        ("--maqet-save-failed", "*--maqet-save-failed is not supported yet*"),
        ("--maqet-vm=stor", "*--maqet-vm stor *there is no such VM; there are nano, store*"),
        ("--maqet-set=vms.nano.memori=1G", "*memori*"),
        ("--maqet-config=nowhere.yaml", "*nowhere.yaml*"),
    ],
)
def test_a_wrong_value_is_one_usage_error(suite, argument, message):
    suite.tests("def test_nothing(): pass")
    result = suite.run_here(argument)
    assert result.ret == pytest.ExitCode.USAGE_ERROR, f"{argument}: exit status {result.ret}"
    result.stderr.fnmatch_lines([message])
    assert "Traceback" not in result.stderr.str(), f"{argument} ended in a traceback"
    assert not list(suite.run_base.glob("*")), "something was started"


def test_a_default_that_is_said_is_fine(suite):
    suite.tests("def test_nothing(): pass")
    result = suite.run_here("--maqet-keep=never", "--maqet-max-memory=auto", "--maqet-start=auto")
    assert result.ret == 0, "a default value must not be refused"


def test_a_wrong_variable_names_itself(suite, monkeypatch):
    suite.tests("def test_nothing(): pass")
    monkeypatch.setenv("MAQET_ACCEL", "xen")
    result = suite.run_here()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*xen (from the environment variable MAQET_ACCEL)*"])


def test_configuration_errors_come_once_with_workers_too(suite):
    suite.yaml("vms:\n  web:\n    memori: 1G\n")
    suite.tests("def test_nothing(): pass")
    result = suite.run("-n2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.str().count("memori") == 1, "the controller alone reports it"
    assert "gw0" not in result.stdout.str(), "a worker was started"


def test_several_files_are_merged_and_an_ini_path_is_relative_to_the_ini_file(suite):
    suite.yaml("vms: {nano: {memory: 24M}}", "sub/more.yaml")
    suite.file("pytest.ini", "[pytest]\nmaqet_config = maqet.yaml sub/more.yaml\n")
    suite.tests("def test_memory(maqet_config_of):\n    assert maqet_config_of('nano').memory == 24 << 20\n")
    suite.conftest(
        """
        import pytest
        from pytest_maqet.session import SESSION

        @pytest.fixture
        def maqet_config_of(pytestconfig):
            return pytestconfig.stash[SESSION].config.vm
        """
    )
    suite.run_here("--rootdir", str(suite.path)).assert_outcomes(passed=1)


def test_settings_without_a_configuration_are_an_error(suite):
    (suite.path / "maqet.yaml").unlink()
    suite.tests("def test_nothing(): pass")
    result = suite.run_here("--maqet-vm=web")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--maqet-vm*needs a configuration*maqet.yaml*"])


def test_the_hook_changes_the_tree_before_settings_do(suite):
    suite.conftest(
        """
        def pytest_maqet_config(config, tree):
            tree["vms"]["nano"]["memory"] = "24M"
            tree["vms"]["extra"] = {"image": "builtin:nano"}
        """
    )
    suite.tests(
        """
        from pytest_maqet.session import SESSION

        def test_it(pytestconfig):
            config = pytestconfig.stash[SESSION].config
            assert config.vm("nano").memory == 32 << 20
            assert set(config.vms) == {"nano", "store", "extra"}
        """
    )
    for workers in ("-n0", "-n2"):
        suite.run(workers, "--maqet-set=vms.nano.memory=32M").assert_outcomes(passed=1)
