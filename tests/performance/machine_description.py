"""What the figures were measured on; without a date, so that the page changes only when a figure does."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from library_vms import a_vm

from pytest_maqet.qemu import accelerator
from pytest_maqet.qemu.binary import find_binary
from pytest_maqet.qemu.capabilities import capabilities


def describe() -> str:
    """A list: CPU, cores, memory, kernel, QEMU, accelerator, Python."""
    binary = find_binary(a_vm("nano"))
    verdict = accelerator.choose(binary, capabilities(binary), "auto")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1024**3
    said = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=True).stdout
    return "\n".join(
        [
            f"- CPU: {_cpu_model()}, {len(os.sched_getaffinity(0))} cores, {platform.machine()}; "
            f"{memory:.0f} GiB of memory",
            f"- kernel: {platform.system()} {platform.release()}",
            f"- QEMU: {said.splitlines()[0]}, accelerator {verdict.name}",
            f"- Python {platform.python_version()}, pytest {version('pytest')}, "
            f"pytest-xdist {version('pytest-xdist')}",
        ]
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or "unknown"
