"""What this host can still give, as /proc and the cgroups say it.

The trees are files made here and not the kernel's own: no test may change the memory or the limits of the
machine that it runs on.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_maqet.host_memory import host_memory, own_memory

MIB = 1 << 20
MEMINFO = "MemTotal:       8388608 kB\nMemFree: 1000 kB\nMemAvailable:   4194304 kB\nHugePages_Total:  0\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    path = tmp_path / "proc"
    (path / "self").mkdir(parents=True)
    (path / "meminfo").write_text(MEMINFO)
    return path


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("memory_", "memory.", 1)).write_text(f"{text}\n")


def test_without_a_limit_the_host_decides(proc, tmp_path):
    found = host_memory(proc, tmp_path / "none")
    assert found is not None
    assert (found.total, found.available) == (8192 * MIB, 4096 * MIB)
    assert found.source == "this host"


def test_a_limit_of_cgroup_v2_counts_without_its_page_cache(proc, tmp_path):
    (proc / "self/cgroup").write_text("0::/user/shell\n")
    group(
        tmp_path / "fs/user/shell",
        memory_max=1024 * MIB,
        memory_current=600 * MIB,
        memory_stat=f"anon 1\nactive_file {100 * MIB}\ninactive_file {200 * MIB}\nslab_reclaimable 0",
    )
    found = host_memory(proc, tmp_path / "fs")
    assert found is not None
    assert found.available == (1024 - 300) * MIB, "what the kernel can take back is not in use"
    assert found.total == 1024 * MIB
    assert found.source == "the cgroup /user/shell (memory.max)"


def test_a_limit_higher_up_counts_as_well(proc, tmp_path):
    (proc / "self/cgroup").write_text("0::/service/job\n")
    group(tmp_path / "fs/service/job", memory_max="max", memory_current=1)
    group(tmp_path / "fs/service", memory_max=512 * MIB, memory_current=112 * MIB)
    found = host_memory(proc, tmp_path / "fs")
    assert found is not None
    assert (found.available, found.source) == (400 * MIB, "the cgroup /service (memory.max)")


def test_memory_high_counts_because_the_kernel_throttles_there(proc, tmp_path):
    (proc / "self/cgroup").write_text("0::/\n")
    group(tmp_path / "fs", memory_max=900 * MIB, memory_high=500 * MIB, memory_current=0)
    found = host_memory(proc, tmp_path / "fs")
    assert found is not None
    assert (found.available, found.source) == (500 * MIB, "the cgroup / (memory.high)")


def test_a_container_of_cgroup_v1_sees_its_limit_at_the_top(proc, tmp_path):
    (proc / "self/cgroup").write_text("4:cpu,memory:/docker/abc\n0::/\n")
    group(
        tmp_path / "fs/memory",
        memory_limit_in_bytes=256 * MIB,
        memory_usage_in_bytes=100 * MIB,
        memory_stat=f"total_active_file {10 * MIB}\ntotal_inactive_file {10 * MIB}",
    )
    found = host_memory(proc, tmp_path / "fs")
    assert found is not None
    assert found.available == 176 * MIB


def test_no_limit_of_cgroup_v1_is_a_very_large_number(proc, tmp_path):
    (proc / "self/cgroup").write_text("4:memory:/\n")
    group(tmp_path / "fs/memory", memory_limit_in_bytes=9223372036854771712, memory_usage_in_bytes=1)
    found = host_memory(proc, tmp_path / "fs")
    assert found is not None
    assert found.source == "this host"


def test_more_used_than_allowed_is_nothing_available(proc, tmp_path):
    (proc / "self/cgroup").write_text("0::/\n")
    group(tmp_path / "fs", memory_max=100 * MIB, memory_current=150 * MIB)
    found = host_memory(proc, tmp_path / "fs")
    assert found is not None
    assert found.available == 0


@pytest.mark.parametrize("text", ["", "MemTotal: 1 kB\n", "MemAvailable: many kB\n"])
def test_a_kernel_that_does_not_say_is_none(proc, tmp_path, text):
    (proc / "meminfo").write_text(text)
    assert host_memory(proc, tmp_path) is None


def test_this_host_says():
    found = host_memory()
    assert found is not None
    assert 0 < found.available <= found.total


def test_memory_of_a_process_grows_with_what_it_writes():
    before = own_memory(os.getpid())
    ballast = bytearray(os.urandom(1)) * (32 * MIB)
    assert own_memory(os.getpid()) - before > 24 * MIB, "32 MiB were written"
    del ballast
    assert own_memory(0) == 0, "a process that is not there has none"
