"""Mutated configurations by the thousand: `python tests/fuzz/fuzz_configurations.py --count 100000 --seed 1`.

Each must give a configuration or a ConfigError that names the file, within a second of CPU time; the process
that does it may not take more than 200 MB. Ends with status 1 and the mutants' numbers when one does not;
`--only N` repeats one.
"""

from __future__ import annotations

import argparse
import re
import resource
import sys
import tempfile
import time
from pathlib import Path

from judging import judge
from mutations import mutant

MOST_SECONDS = 1.0
MOST_MEGABYTES = 200
#: Far above the bound: what grabs gigabytes ends in a MemoryError, not in a dead machine.
ADDRESS_SPACE = 1 << 30


def peak_megabytes() -> int:
    """The most memory that this process has had, in MB.

    Not getrusage's: that one is inherited from the process that started this one (getrusage(2), ru_maxrss).
    """
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) >> 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    numbers = [options.only] if options.only is not None else range(options.count)
    faults, loaded, began = [], 0, time.process_time()
    slowest, heaviest = (0.0, -1), (0, -1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mutant.yaml")
        for number in numbers:
            path.write_bytes(mutant(options.seed, number))
            found = judge(path)
            peak = peak_megabytes()
            loaded += found.loaded
            slowest = max(slowest, (found.seconds, number))
            heaviest = heaviest if peak <= heaviest[0] else (peak, number)
            slow = f"took {found.seconds:.2f} s" if found.seconds > MOST_SECONDS else None
            if fault := found.fault or slow:
                faults.append(number)
                print(f"mutant {number}: {fault}", flush=True)
            if number and number % 10_000 == 0:
                print(f"… {number:,}", file=sys.stderr, flush=True)
    print(
        f"seed {options.seed}, {len(numbers):,} mutants in {time.process_time() - began:.0f} s of CPU: "
        f"{loaded:,} loaded, {len(numbers) - loaded:,} refused, {len(faults)} faults; "
        f"slowest {slowest[0]:.2f} s (mutant {slowest[1]}), peak {heaviest[0]} MB (mutant {heaviest[1]})"
    )
    return 1 if faults or heaviest[0] > MOST_MEGABYTES else 0


if __name__ == "__main__":
    sys.exit(main())
