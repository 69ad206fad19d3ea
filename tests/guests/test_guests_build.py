"""Building builtin:linux: once, whole or not at all, with one clear error where it can't be done."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_maqet.errors import ConfigError, StartError
from pytest_maqet.guests.builtin import builtin_guest
from pytest_maqet.guests.linux_build import LinuxGuest, linux_guest
from pytest_maqet.guests.linux_parts import LinuxParts

# Builds in a process of its own: each build adds a line to the file "log" and waits for the file "go".
BUILDER = """
import os, pathlib, sys, time
from pytest_maqet.guests.linux_build import linux_guest
from pytest_maqet.guests.linux_parts import LinuxParts
folder = pathlib.Path(sys.argv[1])
def parts(directory, report):
    with (folder / "log").open("a") as log:
        log.write("built\\n")
    (directory / "half").write_text("half a download")
    while not (folder / "go").exists():
        time.sleep(0.01)
    return LinuxParts(kernel=folder / "kernel", busybox=folder / "busybox")
print(linux_guest(report=lambda line: print(line, flush=True), parts=parts).identity, flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a kernel and a busybox that are none, and an empty cache."""
    monkeypatch.setenv("MAQET_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "kernel").write_bytes(b"a kernel")
    (tmp_path / "busybox").write_text("#!/bin/sh\necho bin/sh\necho sbin/init\n")
    (tmp_path / "busybox").chmod(0o755)
    return tmp_path


def build(folder: Path, *, force: bool = False) -> LinuxGuest:
    parts = LinuxParts(kernel=folder / "kernel", busybox=folder / "busybox")
    return linux_guest(report=lambda line: None, parts=lambda directory, report: parts, force=force)


def start_builder(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(folder)], stdout=subprocess.PIPE, text=True, bufsize=1
    )


def until(happened, what: str) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.01)


def test_it_is_built_once_and_found_again(folder: Path) -> None:
    first = build(folder)
    assert first.kernel.read_bytes() == b"a kernel"
    assert first.initrd.read_bytes().startswith(b"070701"), "the initramfs is a cpio archive"
    again = linux_guest(
        report=pytest.fail, parts=lambda directory, report: pytest.fail("built a second time")
    )
    assert again == first
    assert stat.S_IMODE(first.kernel.parents[1].stat().st_mode) == 0o700


def test_the_same_parts_give_the_same_guest(folder: Path) -> None:
    first = build(folder)
    times = first.initrd.stat().st_mtime_ns
    assert build(folder, force=True) == first
    assert first.initrd.stat().st_mtime_ns == times, "a VM may be starting from it: it must not be replaced"


def test_other_parts_give_another_guest_beside_the_old_one(folder: Path) -> None:
    first = build(folder)
    (folder / "kernel").write_bytes(b"a newer kernel")
    second = build(folder, force=True)
    assert second.identity != first.identity
    assert first.kernel.exists(), "who was told of the old one may still start it"
    assert build(folder) == second


def test_two_processes_build_one_guest(folder: Path) -> None:
    one, two = start_builder(folder), start_builder(folder)
    until((folder / "log").exists, "a build")
    time.sleep(0.3)
    (folder / "go").touch()
    said = [process.communicate(timeout=60)[0] for process in (one, two)]
    assert [process.returncode for process in (one, two)] == [0, 0]
    assert (folder / "log").read_text() == "built\n", "it was built twice"
    assert said[0].split()[-1] == said[1].split()[-1]
    assert sum("is being built by" in text for text in said) <= 1


def test_a_killed_build_leaves_nothing_that_looks_whole(folder: Path) -> None:
    process = start_builder(folder)
    until((folder / "log").exists, "the build's begin")
    until(lambda: list((folder / "cache").rglob("half")), "the half download")
    process.kill()
    process.communicate(timeout=30)
    guest = build(folder)
    assert guest.kernel.read_bytes() == b"a kernel"
    assert not list((folder / "cache").rglob("half")), "what the killed build left is cleaned up"
    assert sorted(p.name for p in guest.kernel.parents[1].iterdir()) == sorted(
        ["build.lock", "current", guest.identity]
    )


@pytest.mark.parametrize("name", ["kernel", "initrd", "manifest.json"])
def test_a_guest_with_a_file_missing_is_built_again(folder: Path, name: str) -> None:
    first = build(folder)
    (first.kernel.parent / name).unlink()
    second = build(folder)
    assert second.kernel.is_file()
    assert second.initrd.is_file()


def test_a_guest_cut_short_is_built_again(folder: Path) -> None:
    first = build(folder)
    os.truncate(first.initrd, 10)
    assert build(folder).initrd.stat().st_size > 10


def test_a_host_without_apt(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(StartError, match="this host has no apt-get") as caught:
        builtin_guest("builtin:linux")
    assert "pytest-maqet guest build --kernel" in str(caught.value), "it says what can be done instead"
    assert not list((folder / "cache").rglob("building-*"))


@pytest.mark.skipif(not Path("/usr/bin/apt-get").exists(), reason="this host has no apt")
def test_a_host_without_package_lists(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "lists").mkdir()
    (folder / "apt.conf").write_text(f'Dir::State::lists "{folder}/lists/";\n')
    monkeypatch.setenv("APT_CONFIG", str(folder / "apt.conf"))
    with pytest.raises(StartError, match="no package repository of this host offers linux-image") as caught:
        builtin_guest("builtin:linux")
    assert "apt-get update" in str(caught.value)


def test_a_busybox_that_does_not_run(folder: Path) -> None:
    (folder / "busybox").write_bytes(b"\x7fELF nonsense")
    with pytest.raises(StartError, match=r"busybox does not run on this host(?s:.*)busybox-static"):
        build(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written(folder: Path) -> None:
    (folder / "cache").mkdir(mode=0o500)
    with pytest.raises(StartError, match="MAQET_CACHE_DIR"):
        build(folder)


@pytest.mark.parametrize(
    ("name", "arch", "message"),
    [
        ("builtin:linx", "x86_64", r"no embedded guest 'builtin:linx'; did you mean builtin:linux\?"),
        ("builtin:", "x86_64", r"no embedded guest 'builtin:'\nhint: allowed: builtin:linux, builtin:nano"),
        ("builtin:nano", "aarch64", "builtin:nano runs on x86_64 machines only, not on aarch64"),
    ],
)
def test_guests_that_there_are_not(name: str, arch: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        builtin_guest(name, arch)
