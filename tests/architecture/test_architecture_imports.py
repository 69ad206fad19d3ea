"""Who imports whom: the contracts of pyproject.toml, and what they cannot say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter

import pytest
from source_tree import ROOT, dotted, imported, modules, room_of, room_rows, shown

_PLUGIN_IMPORT = """
import sys
import pytest, pluggy
before = set(sys.modules)
import pytest_maqet.plugin
print(*sorted(set(sys.modules) - before))
"""


def test_contracts() -> None:
    pytest.importorskip("importlinter")
    run = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", run, "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"an import rule of pyproject.toml is broken:\n{done.stdout}{done.stderr}"


def test_imports_lead_down_the_page() -> None:
    rank = {room: number for number, row in enumerate(room_rows()) for room in row}
    upward = [
        f"{shown(path)} imports {module}"
        for path in modules()
        for module in sorted(imported(path))
        if module.startswith("pytest_maqet.")
        and rank.get(str(room_of(dotted(path))), -1) > rank.get(str(room_of(module)), len(rank))
    ]
    assert not upward, "imports lead downward only (docs/architecture.md, The rooms):\n" + "\n".join(upward)


def test_no_circles() -> None:
    graph = {
        dotted(path): {name for name in imported(path) if name.startswith("pytest_maqet.")}
        for path in modules()
    }
    circle: Iterable[str] = ()
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = reversed(error.args[1])
    assert not circle, f"modules that need each other: {' → '.join(circle)}"


def test_pytest_is_imported_on_its_own_side_only() -> None:
    theirs = {"pytest", "_pytest", "pluggy", "xdist"}
    side = set(room_rows()[0])
    strays = [
        shown(path)
        for path in modules()
        if {name.partition(".")[0] for name in imported(path)} & theirs and room_of(dotted(path)) not in side
    ]
    assert not strays, f"pytest is imported outside the plugin's side: {', '.join(strays)}"


def test_what_is_not_for_us_is_not_imported() -> None:
    # pytest's inside changes without notice; qemu.qmp.legacy is under another licence and goes away.
    found = [
        f"{shown(path)} imports {name}"
        for path in modules()
        for name in sorted(imported(path))
        if name.startswith(("_pytest", "qemu.qmp.legacy"))
    ]
    assert not found, f"only what is public may be imported: {found}"


def test_the_plugin_loads_nothing_of_others() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PLUGIN_IMPORT],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded = done.stdout.split()
    assert "pytest_maqet.plugin" in loaded
    strange = [
        name
        for name in loaded
        if name.partition(".")[0] not in sys.stdlib_module_names and not name.startswith("pytest_maqet")
    ]
    assert not strange, f"a run without VMs must not pay for {', '.join(strange)}"
    heavy = sorted({"asyncio", "ctypes", "http", "multiprocessing", "ssl", "urllib.request"} & set(loaded))
    assert not heavy, f"a run without VMs must not pay for {', '.join(heavy)}"
