"""xdist: one run directory for all workers, held by the controller, and their books merged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_maqet.errors import MaqetError
from pytest_maqet.reporting.artifacts import shown_path
from pytest_maqet.session import SESSION, folder_name

if TYPE_CHECKING:
    from pytest_maqet.management.run_side import HostShare, RunSide

_RUN: pytest.StashKey[RunSide] = pytest.StashKey()
_SHARE: pytest.StashKey[HostShare] = pytest.StashKey()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker, also one that replaces a crashed one, which run it belongs to."""
    from pytest_maqet.management.run_side import RunSide

    stash = node.config.stash
    if _RUN not in stash:
        try:
            stash[_RUN] = RunSide("controller", None, stash[SESSION].config)
        except MaqetError as error:  # no safe place for the run's files
            raise pytest.UsageError(str(error)) from None
    files = [str(path) for path in stash[SESSION].settings.config]
    run = stash[_RUN].directory
    node.workerinput["maqet"] = {"run_id": run.run_id, "config": files, "directory": run.identity()}


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """A worker on another host than the controller's holds the run there, with the other workers of that."""
    told = getattr(session.config, "workerinput", {}).get("maqet")
    if told is None:
        return
    from pytest_maqet.management.run_side import HostShare
    from pytest_maqet.runs.run_directory import RunDirectory

    if not RunDirectory.is_here(told["directory"]):
        try:
            session.config.stash[_SHARE] = HostShare(told["run_id"])
        except MaqetError as error:
            raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_handlecrashitem(crashitem: str, report: pytest.TestReport) -> None:
    """A test whose worker crashed shows what its VMs left behind; see xdist.newhooks."""
    from pytest_maqet.management.records import Ledger
    from pytest_maqet.reporting.crash import crash_sections, keep_logs

    session = report.node.config.stash[SESSION]  # the worker, as xdist has it
    worker = report.node.gateway.id
    run = session.pytest_config.stash[_RUN].directory.path
    report.sections.extend(crash_sections(run, worker))
    root = session.settings.artifacts
    folder = root / folder_name(crashitem)
    if keep_logs(run, worker, root, folder):
        ledger = Ledger(worker)
        ledger.artifacts.append(str(folder))
        session.ledgers[f"{worker}/crashed"] = ledger.export()
        report.sections.append(("maqet artifacts", shown_path(folder)))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:  # noqa: ARG001 - pluggy calls by name
    """Take over a worker's books; a crashed one has none."""
    output = getattr(node, "workeroutput", None) or {}
    node.config.stash[SESSION].ledgers.update(output.get("maqet", {}))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """The run is over: its shared VMs end, and its directory goes."""
    _end(session.config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Once more, after an interrupt."""
    _end(config)


def _end(config: pytest.Config) -> None:
    """The controller's part in the run, or that of a worker on another host. Idempotent."""
    run = config.stash.get(_RUN, None)
    if run is not None:
        del config.stash[_RUN]
        run.in_haste = config.stash[SESSION].interrupted
        run.close()
        if run.crashes:
            config.stash[SESSION].ledgers["controller/run"] = _told(run.crashes)
    share = config.stash.get(_SHARE, None)
    if share is not None:
        share.close()


def _told(notes: list[str]) -> dict[str, Any]:
    """Lines for the summary."""
    from pytest_maqet.management.records import Ledger

    ledger = Ledger("controller")
    for line in notes:
        ledger.note(line)
    return ledger.export()
