"""What the plugin costs a run that has no configuration, and so no VMs: modules loaded and time.

Modules are counted where no other plugin is loaded, since others may have loaded the same. Times are of whole
runs of one empty test, as it is installed here, with and without `-p no:maqet`.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import Check, Figures, Pairs, in_turns, milliseconds

MOST_MODULES = 15
PAIRS = 20

DUMP_MODULES = """
import json, sys

def pytest_unconfigure(config):
    with open(config.rootpath / "modules.json", "w") as file:
        json.dump(sorted(sys.modules), file)
"""


def measure() -> Figures:
    """Modules once, times in turns."""
    with tempfile.TemporaryDirectory() as scratch:
        suite = Path(scratch)
        (suite / "pytest.ini").write_text("[pytest]\n")
        (suite / "test_nothing.py").write_text("def test_nothing():\n    pass\n")
        _run(suite)
        cpu: dict[bool, list[float]] = {False: [], True: []}

        def timed(*, plugin: bool) -> float:
            before, started = _cpu_of_children(), time.perf_counter()
            _run(suite, *([] if plugin else ["-p", "no:maqet"]))
            took = time.perf_counter() - started
            cpu[plugin].append(_cpu_of_children() - before)
            return took

        wall = in_turns(lambda: timed(plugin=False), lambda: timed(plugin=True), PAIRS)
        more = modules_more(suite)
    others = sorted(name for name in more if _is_third_party(name))
    rows = []
    for name, found in (("wall time", wall), ("CPU time", Pairs(tuple(cpu[False]), tuple(cpu[True])))):
        medians = milliseconds(found.base_median), milliseconds(found.ours_median)
        rows.append((name, *medians, f"{found.ratio:.3f}", milliseconds(found.more), str(PAIRS)))
    return Figures(
        ("a run of one empty test", "without the plugin", "with it", "ratio", "difference", "pairs"),
        rows,
        [
            Check(f"at most {MOST_MODULES} more modules", str(len(more)), len(more) <= MOST_MODULES),
            Check("none of them of third parties", ", ".join(others) or "none", not others),
        ],
        [f"modules: {', '.join(f'`{name}`' for name in sorted(more))}"],
    )


def modules_more(suite: Path) -> set[str]:
    """The modules that a run with the plugin has loaded at its end and one without it has not."""
    (suite / "conftest.py").write_text(DUMP_MODULES)
    found = []
    for arguments in ([], ["-p", "pytest_maqet.plugin"]):
        _run(suite, *arguments, alone=True)
        found.append(set(json.loads((suite / "modules.json").read_text())))
    return found[1] - found[0]


def _is_third_party(name: str) -> bool:
    top = name.partition(".")[0]
    return top != "pytest_maqet" and top not in sys.stdlib_module_names


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(suite: Path, *arguments: str, alone: bool = False) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "MAQET"))}
    if alone:
        env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=suite,
        env=env,
        stdout=subprocess.DEVNULL,
        check=True,
    )
