"""VMs along a test's life: marks before its set-up, failures nobody saw at its end, health afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from functools import partial

import pytest

from pytest_maqet.collection import check_marker_was_read
from pytest_maqet.requirements import check_guest
from pytest_maqet.session import SESSION, attempt
from pytest_maqet.start_ahead import prepare_next, upcoming
from pytest_maqet.vm_selection import uses


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """A test's waits begin here: before its fixtures, at each attempt."""
    session = item.config.stash[SESSION]
    if attempt(item) == 1:
        shutil.rmtree(session.artifacts_of(item), ignore_errors=True)
    session.begin(item)
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Remember which tests come next."""
    session = item.config.stash[SESSION]
    session.upcoming = upcoming(session, item, nextitem)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A test that passed although its guest panicked has not passed, nor has one whose marker did nothing."""
    session = item.config.stash[SESSION]
    check_guest(session, item)
    prepare_next(session, session.upcoming)
    result = yield
    check_marker_was_read(session, item)
    manager = session.started
    for live in manager.lives if manager is not None else ():
        error = live.vm.unseen_failure()
        if error is not None:
            raise error
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Look at the VMs that outlive the test: those it left unusable are replaced before they are used."""
    try:
        return (yield)
    finally:
        manager = item.config.stash[SESSION].started
        if manager is not None:
            for spoiled in manager.inspect(partial(uses, item)):
                text = f"{item.nodeid} left {spoiled.vm} unusable ({spoiled.reason}); it is replaced"
                item.add_report_section("teardown", "maqet", text)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Everything ends here, after pytest has torn down the last fixtures."""
    maqet = session.config.stash[SESSION]
    maqet.end()
    output = getattr(session.config, "workeroutput", None)  # xdist's way back to its controller
    if output is not None:
        output["maqet"] = dict(maqet.ledgers)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Once more, for sessions that ended before they began or were interrupted twice."""
    config.stash[SESSION].end()
