"""Memory of ten idle VMs: clones share the pages of their template that none of them has written."""

from __future__ import annotations

import time

from managed_vms import a_manager, wanted
from measuring import Check, Figures
from memory_cost import memory_of

VMS = 10
#: Clones may take this share of what booted VMs take.
SHARE = 0.5
YAML = "vms: {linux: {image: builtin:linux, memory: 256M}}\n"


def measure() -> Figures:
    """PSS and private memory of ten clones and of ten booted VMs."""
    rows, sums = [], {}
    for way in ("clone", "boot"):
        with a_manager(YAML) as manager:
            vms = [manager.acquire(wanted(manager, "linux", number, start=way)).vm for number in range(VMS)]
            time.sleep(2)  # what the guest does after its ready line
            found = [memory_of(vm.pid) for vm in vms]
        sums[way] = sum(pss for pss, _ in found)
        private = sum(own for _, own in found)
        rows.append((f"{VMS} × {way}", *(f"{size / 1024**2:.0f} MiB" for size in (sums[way], private))))
    share = sums["clone"] / sums["boot"]
    return Figures(
        ("builtin:linux, 256 MB, idle", "PSS of all", "private"),
        rows,
        [
            Check(
                f"{VMS} clones take at most {SHARE:.0%} of the memory of {VMS} booted VMs",
                f"{share:.0%}",
                share <= SHARE,
            )
        ],
    )
