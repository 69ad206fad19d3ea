"""Secrets are masked in what pytest reports, also where a test itself has shown them.

Reports are masked where they are made, in the worker under xdist, so everything that reads them later (the
terminal, JUnit XML, other plugins) gets them so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from typing import Any

import pytest

from pytest_maqet.masking import masked, masked_data


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Mask a test's report after everybody has added to it."""
    report = yield
    _mask(report)
    report.user_properties = [(key, masked_data(value)) for key, value in report.user_properties]
    return report


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
    report.sections = [(title, masked(text)) for title, text in report.sections]
    report.longrepr = _masked_tree(report.longrepr)


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
