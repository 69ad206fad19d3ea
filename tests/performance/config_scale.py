"""How long the configuration takes, stage by stage, for many storage devices and for many VMs.

    python tests/performance/config_scale.py

prints microseconds of CPU time per device for each stage and size, and says whether the growth is linear (the
time per device at the largest size against that at 1,000). Each figure is the best of three.
"""

from __future__ import annotations

import argparse
import gc
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytest_maqet.config.documents import checked_document
from pytest_maqet.config.inheritance import inherited
from pytest_maqet.config.limits import DEFAULT_LIMITS
from pytest_maqet.config.loading import load_config
from pytest_maqet.config.merging import merged_mapping
from pytest_maqet.config.paths import PathResolver
from pytest_maqet.config.places import Source
from pytest_maqet.config.preparation import Preparation
from pytest_maqet.config.problems import Problems
from pytest_maqet.config.vm_model import VmConfig
from pytest_maqet.config.yaml_loader import load_yaml

DEVICES = (100, 1_000, 3_000, 10_000)
VMS = (100, 300, 1_000)
REPEATS = 3


def device_lines(count: int, indent: str) -> str:
    """`count` storage devices of five keys each, with relative paths."""
    return "".join(
        f"{indent}- name: data{number}\n{indent}  type: qcow2\n{indent}  size: {number % 50 + 1}G\n"
        f"{indent}  interface: virtio\n{indent}  backing_file: images/base{number}.qcow2\n"
        for number in range(count)
    )


def one_vm(devices: int) -> tuple[str, str]:
    """A VM with many devices, and a second file that changes every tenth of them."""
    first = f"vms:\n  web:\n    image: builtin:linux\n    storage:\n{device_lines(devices, '      ')}"
    changes = "".join(f"      - {{name: data{number}, size: 2G}}\n" for number in range(0, devices, 10))
    return first, f"vms:\n  web:\n    storage:\n{changes}"


def many_vms(vms: int) -> tuple[str, str]:
    """Many VMs that extend one another in pairs, with ten devices each, and a second file over them."""
    first = ["defaults: {timeouts: {ready: 90}}\nvms:\n"]
    for number in range(vms):
        extends = f"    extends: vm{number - 1}\n" if number % 2 else ""
        devices = "" if extends else f"    storage:\n{device_lines(10, '      ')}"
        first.append(f"  vm{number}:\n    image: builtin:linux\n    memory: 512M\n{extends}{devices}")
    return "".join(first), "vms:\n" + "".join(f"  vm{number}: {{memory: 1G}}\n" for number in range(vms))


def best(work: Callable[[], Any]) -> tuple[float, Any]:
    """The shortest of some runs in seconds of CPU time, and the last result."""
    times = []
    for _ in range(REPEATS):
        gc.collect()
        started = time.process_time()
        result = work()
        times.append(time.process_time() - started)
    return min(times), result


def stages(texts: tuple[str, str], directory: Path) -> Mapping[str, float]:
    """Seconds for each stage, and for `load_config` as a whole."""
    files = [directory / "maqet.yaml", directory / "ci.yaml"]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    problems = Problems()
    took: dict[str, float] = {}

    def parse() -> list[Any]:
        return [
            checked_document(
                load_yaml(file.read_text(), Source.of_file(file), problems=problems, environ={}),
                file,
                file.name,
                problems,
            )
            for file in files
        ]

    def prepare() -> list[dict[str, Any]]:
        resolver = PathResolver(directory)
        return [Preparation(name, problems, resolver).prepared(vm) for name, vm in nodes.items()]

    took["parse"], documents = best(parse)
    took["merge"], tree = best(lambda: merged_mapping(documents[0], documents[1]))
    took["inherit"], nodes = best(lambda: inherited(tree, problems))
    took["resolve"], prepared = best(prepare)
    took["validate"], _ = best(lambda: [VmConfig.model_validate(data) for data in prepared])
    took["load_config"], config = best(lambda: load_config(files, environ={}, limits=DEFAULT_LIMITS))
    took["digest"], _ = best(lambda: [vm.model_copy().key for vm in config.vms.values()])
    problems.check()
    return took


def table(title: str, unit: str, sizes: tuple[int, ...], texts: Callable[[int], tuple[str, str]]) -> None:
    """Measure and print one table, and the growth from its second size to its last."""
    print(f"\n{title}: microseconds of CPU time per {unit}")
    rows: dict[int, Mapping[str, float]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as directory:
            rows[size] = stages(texts(size), Path(directory))
        if size == sizes[0]:
            print(f"{unit + 's':>10}" + "".join(f"{stage:>13}" for stage in rows[size]))
        print(f"{size:>10,}" + "".join(f"{seconds / size * 1e6:>13.1f}" for seconds in rows[size].values()))
    growth = (rows[sizes[-1]]["load_config"] / sizes[-1]) / (rows[sizes[1]]["load_config"] / sizes[1])
    print(f"time per {unit} at {sizes[-1]:,} against {sizes[1]:,}: {growth:.2f} (1 is linear)")


def main() -> None:
    """Print both tables."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}")
    table("Storage devices of one VM, two files", "device", DEVICES, one_vm)
    table("VMs with ten devices each, half of them by `extends:`, two files", "VM", VMS, many_vms)


if __name__ == "__main__":
    main()
