"""How long the configuration takes, stage by stage, for many storage devices and for many VMs.

CPU time per device for each stage and size, and whether the growth is linear: the time per device at the
largest size against that at the size before. The sizes are measured in turns, and each figure is the best of
its rounds.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import Check, Figures

from pytest_maqet.config import Config
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

DEVICES = (100, 1_000, 10_000)
VMS = (100, 1_000)
ROUNDS = 2
#: A size is measured this many times as often as it is smaller than the largest, at most.
MOST_REPEATS = 5
#: Linear means that what one device costs grows by no more than this factor while their number grows tenfold.
LINEAR = 1.5
#: What is measured, in order; `load_config` is all of it but the digest, as the plugin calls it.
STAGES = ("parse", "merge", "inherit", "resolve", "validate", "digest", "load_config", "without gc")


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


def measure_devices() -> Figures:
    """One VM with 100 to 10,000 storage devices of five keys each, in two files."""
    return _figures("device", DEVICES, one_vm)


def measure_vms() -> Figures:
    """100 and 1,000 VMs with ten devices each, half of them by `extends:`, in two files."""
    return _figures("VM", VMS, many_vms)


def time_per_piece(sizes: tuple[int, ...], texts: Callable[[int], tuple[str, str]]) -> dict[int, list[float]]:
    """Seconds of CPU time per device or VM for each size and stage."""
    best: dict[int, list[float]] = {}
    for _ in range(ROUNDS):
        for size in sizes:
            for _ in range(max(1, min(MOST_REPEATS, sizes[-1] // size // 2))):
                with tempfile.TemporaryDirectory() as directory:
                    found = [seconds / size for seconds in stages(texts(size), Path(directory))]
                best[size] = list(map(min, found, best.get(size, found)))
    return best


def stages(texts: tuple[str, str], directory: Path) -> list[float]:
    """Seconds of CPU time for each of `STAGES`."""
    files = [directory / "maqet.yaml", directory / "ci.yaml"]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    problems = Problems()

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

    def load() -> Config:
        return load_config(files, environ={}, limits=DEFAULT_LIMITS)

    def load_and_digest() -> tuple[float, float]:
        took, config = _timed(load)
        return took, _timed(lambda: [vm.key for vm in config.vms.values()])[0]

    whole, digesting = load_and_digest()
    uncollected, _ = _timed(load, collect=False)
    parsing, documents = _timed(parse)
    merging, tree = _timed(lambda: merged_mapping(documents[0], documents[1]))
    inheriting, nodes = _timed(lambda: inherited(tree, problems))
    resolving, prepared = _timed(prepare)
    validating, _ = _timed(lambda: [VmConfig.model_validate(data) for data in prepared])
    problems.check()
    return [parsing, merging, inheriting, resolving, validating, digesting, whole, uncollected]


def _timed(work: Callable[[], Any], *, collect: bool = True) -> tuple[float, Any]:
    """Seconds of CPU time for `work`, and its result; with or without Python's garbage collector."""
    gc.collect()
    if not collect:
        gc.disable()
    try:
        started = time.process_time()
        result = work()
        return time.process_time() - started, result
    finally:
        gc.enable()


def _figures(piece: str, sizes: tuple[int, ...], texts: Callable[[int], tuple[str, str]]) -> Figures:
    took = time_per_piece(sizes, texts)
    whole = STAGES.index("load_config")
    before, last = sizes[-2:]
    growth = took[last][whole] / took[before][whole]
    return Figures(
        (f"{piece}s", *STAGES),
        [(f"{size:,}", *(f"{seconds * 1e6:.1f} µs" for seconds in took[size])) for size in sizes],
        [
            Check(
                f"linear: a {piece} out of {last:,} costs at most {LINEAR:g} times one out of {before:,}",
                f"{growth:.2f} times",
                growth <= LINEAR,
            )
        ],
        [
            f"CPU times for each {piece}; `load_config` is the whole way, as the plugin goes it, and "
            "`without gc` the same with Python's garbage collector off, whose share grows with what is alive"
        ],
    )
