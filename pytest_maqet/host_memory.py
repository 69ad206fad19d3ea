"""How much memory this host can still give: what the kernel says is available, and the cgroups' limits.

Facts: proc_meminfo(5) and its `MemAvailable`; the kernel's Documentation/admin-guide/cgroup-v2.rst and
cgroup-v1/memory.rst. A container sees its own limit at the top of /sys/fs/cgroup, a service of systemd below
its path there: every level up to the top counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
#: A limit of cgroup v1 at or above this is none: the largest that fits its counters, in pages.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True)
class HostMemory:
    """Bytes: `total` could be had at best, `available` can be had now; `source` says whose word that is."""

    total: int
    available: int
    source: str


@dataclass(frozen=True)
class _Files:
    """The names that one version of cgroups has for the same things."""

    limit: tuple[str, ...]
    usage: str
    #: What the kernel can take back at any time, in memory.stat; memory of tmpfs is not in it.
    reclaimable: tuple[str, ...]


_V2 = _Files(
    ("memory.max", "memory.high"), "memory.current", ("active_file", "inactive_file", "slab_reclaimable")
)
_V1 = _Files(
    ("memory.limit_in_bytes",), "memory.usage_in_bytes", ("total_active_file", "total_inactive_file")
)


def host_memory(proc: Path = PROC, cgroups: Path = CGROUPS) -> HostMemory | None:
    """The tightest of the host's memory and every cgroup limit above this process.

    None where the kernel does not say (no Linux, no /proc). Swap does not count: a guest in it is no use.
    """
    try:
        total, available = _meminfo(proc)
    except (OSError, ValueError, LookupError):
        return None
    bounds = [HostMemory(total, available, "this host"), *_cgroup_bounds(proc, cgroups)]
    tightest = min(bounds, key=lambda bound: bound.available)
    return HostMemory(min(bound.total for bound in bounds), max(0, tightest.available), tightest.source)


def own_memory(pid: int, proc: Path = PROC) -> int:
    """Bytes that only this process has in memory, which nobody else can be given; 0 when it is gone.

    Pages of a file that it maps and has not written are the page cache's, and count as available.
    """
    try:
        return sum(_numbers(proc / str(pid) / "status", "RssAnon", "RssShmem"))
    except (OSError, ValueError, LookupError):
        return 0


def _meminfo(proc: Path) -> tuple[int, int]:
    return _numbers(proc / "meminfo", "MemTotal", "MemAvailable")


def _numbers(path: Path, first: str, second: str) -> tuple[int, int]:
    """Two sizes, in bytes, of a file that has a name, a colon and a number of KiB in each line.

    Not the whole file is taken apart: this is done at every start. Raises OSError, ValueError, LookupError.
    """
    text = path.read_text()
    found = [re.search(rf"^{name}:\s*(\d+)", text, re.MULTILINE) for name in (first, second)]
    values = [int(match[1]) << 10 for match in found if match is not None]
    if len(values) < len(found):
        raise LookupError(f"{path} has no {first} or no {second}")
    return values[0], values[1]


def _cgroup_bounds(proc: Path, cgroups: Path) -> Iterator[HostMemory]:
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            for top in (cgroups, cgroups / "unified"):
                yield from _bounds_up(top, path, _V2)
        elif "memory" in controllers.split(","):
            yield from _bounds_up(cgroups / "memory", path, _V1)


def _bounds_up(top: Path, path: str, files: _Files) -> Iterator[HostMemory]:
    """The bounds of a group and of all above it; levels that this process cannot see are skipped."""
    group = top / path.lstrip("/")
    for folder in (group, *group.parents):
        if folder != top and top not in folder.parents:
            return
        yield from _bound(folder, top, files)


def _bound(folder: Path, top: Path, files: _Files) -> Iterator[HostMemory]:
    for name in files.limit:
        try:
            limit = int((folder / name).read_text())
            usage = int((folder / files.usage).read_text())
        except (OSError, ValueError):  # no such group here, or the word "max"
            continue
        if limit < _NO_LIMIT:
            where = "/" + str(folder.relative_to(top)).lstrip(".")
            free = limit - max(0, usage - _reclaimable(folder, files))
            yield HostMemory(limit, free, f"the cgroup {where} ({name})")


def _reclaimable(folder: Path, files: _Files) -> int:
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
        found = dict(line.split() for line in lines)
        return sum(int(found.get(name, 0)) for name in files.reclaimable)
    except (OSError, ValueError):
        return 0
