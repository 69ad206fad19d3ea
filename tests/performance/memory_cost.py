"""What a VM costs in memory beside QEMU itself: its keeper, and its handle in the test's process.

PSS is a process's own memory plus its share of what it shares with others (proc(5), smaps_rollup).
"""

from __future__ import annotations

import gc
import os
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median

from library_vms import a_run, a_vm
from measuring import Figures

from pytest_maqet.machine import launch

#: VMs before the first look (what the first one needs is needed once), and VMs between the looks.
BEFORE, VMS = 2, 8


def measure() -> Figures:
    """Memory, threads and descriptors of the test process before and after, and PSS of each process."""
    with a_run() as host, ExitStack() as stack:

        def start(count: int) -> list[int]:
            return [stack.enter_context(closing(launch(a_vm("nano"), host))).pid for _ in range(count)]

        start(BEFORE)
        before = _here()
        pids = start(VMS)
        after = _here()
        keepers = [memory_of(_parent(pid)) for pid in pids]
        qemus = [memory_of(pid) for pid in pids]
    grown = [(late - early) / VMS for early, late in zip(before, after, strict=True)]
    return Figures(
        ("per VM", "PSS", "private"),
        [
            ("its keeper", *_shown(keepers)),
            ("its handle in the test's process", _mib(grown[0]), _mib(grown[1])),
            ("QEMU itself (builtin:nano, 256 MiB, of which it touches little)", *_shown(qemus)),
        ],
        remarks=[
            f"the test's process with {BEFORE + VMS} VMs has {after[2]} threads "
            f"({grown[2]:+g} for each VM) and {grown[3]:g} descriptors open for each VM"
        ],
    )


def _here() -> tuple[float, float, int, int]:
    """PSS, private memory, threads and descriptors of this process."""
    gc.collect()
    return *memory_of(os.getpid()), threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


def memory_of(pid: int) -> tuple[float, float]:
    """PSS and private memory of a process, in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return sizes["Pss"], sizes["Private_Clean"] + sizes["Private_Dirty"]


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _shown(memory: list[tuple[float, float]]) -> tuple[str, str]:
    return _mib(median(pss for pss, _ in memory)), _mib(median(own for _, own in memory))


def _mib(size: float) -> str:
    return f"{size / 1024**2:.2f} MiB"
