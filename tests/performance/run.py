"""Runs the benchmarks and prints their figures.

    python tests/performance/run.py                    all of them, in less than eight minutes
    python tests/performance/run.py boot idle          some of them
    python tests/performance/run.py --write            and puts the figures into docs/performance.md

Exit status 1 when a requirement does not hold. Ratios within one run are what counts: run it on a machine
that does nothing else, or at least does the same all the time.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import boot_cost
import checkpoint_cost
import clone_cost
import clone_memory
import config_scale
import failure_latency
import idle_cost
import machine_description
import memory_cost
import parallel_starts
import peer_suites
import suite_cost

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"

#: The benchmarks by the name of their place in the page.
BENCHMARKS = {
    "boot": boot_cost.measure,
    "idle": idle_cost.measure,
    "devices": config_scale.measure_devices,
    "vms": config_scale.measure_vms,
    "parallel": parallel_starts.measure,
    "memory": memory_cost.measure,
    "latency": failure_latency.measure,
    "clones": clone_cost.measure,
    "sizes": clone_cost.measure_sizes,
    "suite": suite_cost.measure,
    "sharing": clone_memory.measure,
    "checkpoints": checkpoint_cost.measure,
    "peers": peer_suites.measure,
}


def main() -> int:
    """Measure, print, and write where that is wanted."""
    keep_byte_code()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHMARKS)}")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/performance.md")
    wanted = parser.parse_args()
    if unknown := sorted(set(wanted.names) - set(BENCHMARKS)):
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    texts = {"machine": machine_description.describe()}
    print(texts["machine"])
    failed = []
    for name in wanted.names or BENCHMARKS:
        started = time.perf_counter()
        figures = BENCHMARKS[name]()
        texts[name] = figures.markdown()
        print(f"\n{name} ({time.perf_counter() - started:.0f} s)\n\n{texts[name]}", flush=True)
        failed += [f"{name}: {check}" for check in figures.checks if not check.held]
    if wanted.write:
        PAGE.write_text(written(PAGE.read_text(), texts))
    print("\n".join(failed), file=sys.stderr)
    return 1 if failed else 0


def keep_byte_code() -> None:
    """Begin again where Python may not keep compiled modules: each import would then pay for compiling."""
    if sys.dont_write_bytecode:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        os.execve(sys.executable, [sys.executable, *sys.argv], env)


def written(page: str, texts: dict[str, str]) -> str:
    """The page with each text between its two marks, `<!-- figures: NAME -->` and `<!-- end -->`."""
    for name, text in texts.items():
        before, begin, rest = page.partition(f"<!-- figures: {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not (begin and end):
            raise SystemExit(f"{PAGE} has no place for the figures of {name!r}")
        page = f"{before}{begin}\n{text.strip()}\n\n{end}{after}"
    return page


if __name__ == "__main__":
    sys.exit(main())
