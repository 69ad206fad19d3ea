"""The plugin pytest loads: options, hooks and markers always, everything else only with a configuration.

A run without a configuration must cost next to nothing, so nothing here imports more than pytest and a
handful of our own small modules until a configuration file is there.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import suppress

import pytest

from pytest_maqet import fixtures, hookspecs, markers, options
from pytest_maqet.session import SESSION, MaqetSession
from pytest_maqet.unread_files import folders_of_arguments, unread_files

#: A copy of stderr from before pytest captures it: builds and downloads show their progress there.
_STDERR: pytest.StashKey[int] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare our options; see https://docs.pytest.org/en/stable/reference/reference.html#pytest.hookspec.pytest_addoption."""
    options.add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Let others hook into what we do."""
    pluginmanager.add_hookspecs(hookspecs)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    """Keep a way to the terminal, before pytest begins to capture output."""
    with suppress(OSError):  # stderr may be closed: then nobody sees progress
        early_config.stash[_STDERR] = os.dup(2)
    return (yield)


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> Generator[None, int, int]:
    """No more workers than there is memory for; see xdist.newhooks. Called before `pytest_configure`."""
    asked = yield
    from pytest_maqet import worker_count

    return worker_count.capped(config, asked)


def pytest_configure(config: pytest.Config) -> None:
    """Read options and configuration, and register what they ask for.

    Faults are usage errors: one message, exit status 4, nothing started. Under xdist the controller is
    configured before it starts a worker, so there is one message too.
    """
    markers.register(config)
    session = MaqetSession(config, options.read_settings(config))
    config.stash[SESSION] = session
    session.terminal = config.stash.get(_STDERR, None)
    if session.terminal is not None:
        config.add_cleanup(lambda: os.close(config.stash[_STDERR]))
    config.pluginmanager.register(fixtures, "maqet-fixtures")
    if session.settings.config:
        from pytest_maqet import activation

        activation.activate(config, session)
    else:
        _refuse_orphans(session)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say so when a configuration that lies at hand is not read; who names files has chosen."""
    settings = config.stash[SESSION].settings
    if "config" in settings.sources:
        return []
    unread = unread_files(config, settings, folders_of_arguments(config))
    return [f"maqet: {unread.why}; {unread.cure}"] if unread else []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A fixture that is not found may be a VM of a file that is not read."""
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, pytest.FixtureLookupError):
        settings = item.config.stash[SESSION].settings
        unread = unread_files(item.config, settings, [item.path.parent])
        if unread:
            report.sections.append(("maqet", f"{unread.why}\nhint: {unread.cure}"))
    return report


def _refuse_orphans(session: MaqetSession) -> None:
    """Settings that change a configuration make no sense without one."""
    for name in ("set", "vm"):
        if getattr(session.settings, name):
            said = f"--maqet-{name} (from the {session.settings.source(name)}) needs a configuration"
            raise pytest.UsageError(str(session.no_configuration(said)))
