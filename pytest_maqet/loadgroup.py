"""xdist's `--dist loadgroup`: says so where the installed versions do not do what it promises.

VMs are right however tests are spread; who put tests that share a VM into a group pays for each worker's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import pytest

from pytest_maqet.markers import MARKED_FIXTURES
from pytest_maqet.session import SESSION, MaqetSession

#: Before this version of xdist a loadgroup run whose worker crashes may wait for ever (pytest-xdist#1323).
MENDED = (3, 9)


def pytest_report_header(config: pytest.Config) -> str | None:
    """Before a run that may hang; nothing else could say it then."""
    xdist = version("pytest-xdist")
    asked = config.getoption("dist", "no") == "loadgroup" and config.getoption("maxworkerrestart") != "0"
    if not asked or not config.stash[SESSION].config.vms or _numbers(xdist) >= MENDED:
        return None
    return (
        f"maqet: with xdist {xdist} a --dist loadgroup run may hang for ever when a worker crashes "
        "(pytest-xdist#1323); --max-worker-restart=0 ends it instead"
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """In a worker, after xdist has written each test's group into its id, or has not."""
    session = config.stash[SESSION]
    if not config.getoption("loadgroup", default=False) or session.run_id is None:
        return
    grouped = [item for item in items if item.get_closest_marker("xdist_group") and _has_vm(session, item)]
    if any("@" not in item.nodeid.rpartition("::")[2] for item in grouped):
        from pytest_maqet.management.records import Ledger

        ledger = Ledger(session.worker)
        ledger.note(
            f"xdist's loadgroup does not group with pytest {pytest.__version__} and xdist "
            f"{version('pytest-xdist')} (pytest-xdist#1386): tests of one group ran on several workers, each "
            "with VMs of its own; `scope: run` shares one among all workers, --dist=loadscope goes by module"
        )
        session.ledgers[f"{session.worker}/loadgroup"] = ledger.export()


def _has_vm(session: MaqetSession, item: pytest.Item) -> bool:
    names = set(getattr(item, "fixturenames", ()))
    return bool(names & (session.named.keys() | MARKED_FIXTURES.keys() | {"vms", "vm_factory", "maqet"}))


def _numbers(text: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(part) for part in text.split(".")[:2] if part.isdecimal())
