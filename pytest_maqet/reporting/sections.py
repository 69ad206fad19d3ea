"""A failed test shows its VMs: sections in the report (they cross xdist), files in the artifacts."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_maqet.reporting.artifacts import made_folder, shown_path
from pytest_maqet.reporting.tracebacks import shorten
from pytest_maqet.session import SESSION
from pytest_maqet.vm_selection import uses

if TYPE_CHECKING:
    from pytest_maqet.management.manager import Manager
    from pytest_maqet.management.wishes import Live


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the VMs of a failed test have to show."""
    text = shorten(item, call.excinfo.value) if call.excinfo is not None else None
    report = yield
    if not report.failed:
        return report
    if text is not None:
        report.longrepr = text
    manager = item.config.stash[SESSION].started
    if manager is not None:
        report.sections.extend(_sections(manager, item))
        _keep(manager, item, report)
    return report


def _sections(manager: Manager, item: pytest.Item) -> list[tuple[str, str]]:
    """Sections of the VMs that did not start, then of those the test uses."""
    sections = manager.take_evidence()
    for live in manager.lives:
        if uses(item, live):
            try:
                sections.extend(live.vm.report_sections())
            except Exception as error:  # noqa: BLE001 - a report must not be lost for want of an ornament
                sections.append((f"VM {live.config.name}", f"nothing can be shown: {error}"))
    return sections


def _keep(manager: Manager, item: pytest.Item, report: pytest.TestReport) -> None:
    """Save logs and screenshots of the VMs, and say where."""
    folder = manager.artifacts
    lives = [live for live in manager.lives if uses(item, live)]
    if lives:
        with suppress(OSError):
            made_folder(item.config.stash[SESSION].settings.artifacts, folder)
    faults = [fault for live in lives if (fault := _save(live, folder))]
    if folder.is_dir():
        manager.ledger.artifacts.append(str(folder))
    if folder.is_dir() or faults:
        report.sections.append(("maqet artifacts", "\n".join([shown_path(folder), *faults])))


def _save(live: Live, folder: Path) -> str:
    """Save what there is of a VM; why not all of it could be, or nothing."""
    try:
        live.vm.save_artifacts(folder)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return f"of {live.config.name} not everything could be kept: {error.strerror}{where}"
    except Exception as error:  # noqa: BLE001 - as above
        return f"of {live.config.name} not everything could be kept: {error}"
    return ""
