"""Fixture names that a VM must not take: pytest would silently replace one fixture by the other."""

from __future__ import annotations

import pytest

from pytest_maqet.markers import MARKED_FIXTURES
from pytest_maqet.vm_selection import fixture_names_in

_OURS = frozenset(
    {"vms", "maqet", "vm_start_lock", *MARKED_FIXTURES}
    | {f"{scope}vm_factory" for scope in ("", "class_", "module_", "package_", "session_")}
)

#: What pytest and xdist define; kept here too, for a run without xdist or with `-p no:…`.
_BUILT_IN = frozenset(
    {"request", "cache", "capfd", "capfdbinary", "caplog", "capsys", "capsysbinary", "capteesys"}
    | {"doctest_namespace", "monkeypatch", "pytestconfig", "record_property", "record_testsuite_property"}
    | {"record_xml_attribute", "recwarn", "subtests", "testdir", "tmp_path", "tmp_path_factory", "tmpdir"}
    | {"tmpdir_factory", "pytester", "linecomp", "LineMatcher", "worker_id", "testrun_uid"}
)


def reserved_fixture_names(config: pytest.Config) -> dict[str, str]:
    """Every taken name and who has it: us, pytest, and the installed plugins.

    Fixtures of conftest files are not among them: they override a VM's fixture on purpose.
    """
    reserved = dict.fromkeys(_BUILT_IN, "pytest")
    for plugin, distribution in config.pluginmanager.list_plugin_distinfo():
        for name in fixture_names_in(plugin):
            reserved[name] = f"the plugin {distribution.project_name}"
    for plugin in config.pluginmanager.get_plugins():
        if str(getattr(plugin, "__name__", "")).startswith("_pytest."):
            reserved.update(dict.fromkeys(fixture_names_in(plugin), "pytest"))
    reserved.update(dict.fromkeys(_OURS, "pytest-maqet"))
    return reserved
