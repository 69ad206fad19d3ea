"""Assertions about paths in a configuration, for this project's tests and for those of its users."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pytest_maqet.config.vm_model import VmConfig


def assert_resolves(vm: VmConfig, expected: Mapping[str, Path | str], *, base: Path | None = None) -> None:
    """Assert which files a VM's configuration leads to.

    `expected` maps key paths (`"image"`, `"storage[0].file"`, as `VmConfig.paths()` has them) to paths;
    relative ones are relative to `base` (default: the current directory). Keys that are not named are not
    looked at. Raises AssertionError that lists every difference, with how the real path differs.
    """
    found = vm.paths()
    directory = base or Path.cwd()
    faults = [
        fault
        for key, path in expected.items()
        if (fault := _difference(key, found, Path(os.path.normpath(directory / path)))) is not None
    ]
    if faults:
        raise AssertionError(
            f"paths of VM {vm.name!r} differ:\n" + "\n".join(f"  {fault}" for fault in faults)
        )


def _difference(key: str, found: Mapping[str, Path], wanted: Path) -> str | None:
    if key not in found:
        return f"{key}: no path there; the VM has {', '.join(found) or 'none at all'}"
    actual = found[key]
    if not actual.is_absolute():
        return f"{key}: {actual} is not absolute; wanted {wanted}"
    if actual == wanted:
        return None
    if os.path.realpath(actual) == os.path.realpath(wanted):
        return f"{key}: {actual}, wanted {wanted}: the same file by another way (a link on the path)"
    common = os.path.commonpath([actual, wanted])
    return f"{key}: {actual}, wanted {wanted}: they part below {common}"
