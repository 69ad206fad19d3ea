"""Secrets are masked in what pytest reports, also where a test itself has shown them.

Reports are masked where they are made, in the worker under xdist, and once more before anybody reads them:
the terminal, JUnit XML, other plugins. In between pytest makes the reports of subtests of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator
from typing import Any

import pytest

from pytest_maqet.masking import masked, masked_data


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Mask a test's report after everybody has added to it."""
    report = yield
    _mask(report)
    return report


class Readers:
    """What is done before a report is read; `in_worker`: xdist, not somebody who shows it."""

    def __init__(self, *, in_worker: bool) -> None:
        self._in_worker = in_worker

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Mask what was added to a report, and the names of tests that are not in a parameter's id."""
        _mask(report)
        _mask_subtest(getattr(report, "context", None))
        if not self._in_worker:  # xdist compares a worker's ids with those of the items
            report.nodeid = masked(report.nodeid)
            report.location = masked_data(report.location)


@pytest.fixture
def record_xml_attribute(
    record_xml_attribute: Callable[[str, object], None],
) -> Callable[[str, object], None]:
    """Add an attribute to the test's element in JUnit XML, secrets masked; pytest's own otherwise."""
    return lambda name, value: record_xml_attribute(masked(name), masked_data(value))


@pytest.fixture(scope="session")
def record_testsuite_property(
    record_testsuite_property: Callable[[str, object], None],
) -> Callable[[str, object], None]:
    """Add a property to the suite's element in JUnit XML, secrets masked; pytest's own otherwise."""
    return lambda name, value: record_testsuite_property(masked(name), masked_data(value))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for what could not be collected."""
    report = yield
    _mask(report)
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_internalerror(excrepr: Any) -> None:
    """An error in a plugin shows arguments, too."""
    _masked_tree(excrepr)


@pytest.hookimpl(tryfirst=True)
def pytest_warning_recorded(warning_message: Any) -> None:
    """Before the terminal takes a warning for its summary."""
    said = str(warning_message.message)
    if (text := masked(said)) != said:
        warning_message.message = UserWarning(text)


def _mask(report: pytest.TestReport | pytest.CollectReport) -> None:
    report.sections = [(masked(title), masked(text)) for title, text in report.sections]
    if isinstance(report, pytest.TestReport):
        report.user_properties = [(masked(key), masked_data(value)) for key, value in report.user_properties]
        if reason := getattr(report, "wasxfail", None):
            vars(report)["wasxfail"] = masked(reason)
    report.longrepr = _masked_tree(report.longrepr)


def _mask_subtest(context: Any) -> None:
    """What was said of a subtest: a message and values by name, as texts, in a frozen object."""
    for name in ("msg", "kwargs"):
        said = getattr(context, name, None)
        if said and (hidden := masked_data(said)) != said:
            object.__setattr__(context, name, hidden)


def _masked_tree(value: Any) -> Any:
    """What pytest shows of a failure: text, a tuple, or dataclasses of those, which are changed in place."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, tuple):
        return tuple(_masked_tree(item) for item in value)
    if isinstance(value, list):
        value[:] = [_masked_tree(item) for item in value]
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and not _is_fixed(value):
        for name, item in list(vars(value).items()):
            setattr(value, name, _masked_tree(item))
        return value
    if hasattr(value, "toterminal"):  # of another plugin: its looks are lost only where it shows a secret
        said = str(value)
        return value if masked(said) == said else masked(said)
    return value


def _is_fixed(value: Any) -> bool:
    """Whether a dataclass, which some plugin has made, is frozen or has slots."""
    return bool(type(value).__dataclass_params__.frozen) or not hasattr(value, "__dict__")
