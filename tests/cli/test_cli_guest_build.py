"""`pytest-maqet guest build` from parts that are named; those that apt fetches are tests/guests' matter."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """Something to take for a kernel: the build copies it, and does not look into it."""
    path = tmp_path / "vm linux"
    path.write_bytes(b"kernel")
    return path


@pytest.fixture
def busybox(tmp_path: Path) -> Path:
    """A program that lists its commands as busybox does."""
    path = tmp_path / "busybox"
    path.write_text("#!/bin/sh\necho bin/sh\necho bin/ls\n")
    path.chmod(0o700)
    return path


def built(done: subprocess.CompletedProcess[str]) -> Path:
    """The directory of the guest that a command has built."""
    assert done.returncode == 0, done.stderr
    words, _, directory = done.stdout.rstrip("\n").partition(" is in ")
    assert words == "builtin:linux"
    return Path(directory)


def test_a_kernel_and_an_initramfs(command: Command, kernel: Path, tmp_path: Path, cache: Path) -> None:
    initrd = tmp_path / "initrd"
    initrd.write_bytes(b"initrd")
    done = command("guest", "build", "--kernel", "vm linux", "--initrd", "initrd")
    directory = built(done)
    assert directory.is_relative_to(cache)
    assert (directory / "kernel").read_bytes() == b"kernel"
    assert (directory / "initrd").read_bytes() == b"initrd", "the initramfs was not taken as it is"
    assert "building builtin:linux" in done.stderr, "no progress was shown"
    origin = json.loads((directory / "manifest.json").read_text())["origin"]
    assert origin == [f"kernel={kernel}", f"initrd={initrd}"], "the manifest does not say what it is made of"


def test_it_is_found_again(command: Command, kernel: Path, busybox: Path) -> None:
    first = built(command("guest", "build", "--kernel", kernel, "--busybox", busybox))
    again = command("guest", "build")
    assert built(again) == first, "the guest that was there is not the one that is used"
    assert again.stderr == "", "nothing had to be built"


def test_named_parts_replace_an_older_guest(command: Command, kernel: Path, busybox: Path) -> None:
    first = built(command("guest", "build", "--kernel", kernel, "--busybox", busybox))
    kernel.write_bytes(b"another kernel")
    second = built(command("guest", "build", "--kernel", kernel, "--busybox", busybox))
    assert second != first
    assert (second / "kernel").read_bytes() == b"another kernel", "the parts that were named were not used"
    assert built(command("guest", "build")) == second


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--initrd", "x"], "--initrd needs --kernel, the kernel it is for"),
        (["--busybox", "x"], "--busybox needs --kernel, the kernel it is for"),
        (["--modules", "x"], "--modules needs --kernel, the kernel it is for"),
        (["--kernel", "x"], "--kernel needs --initrd, or --busybox"),
        (["--kernel", "x", "--initrd", "y", "--busybox", "z"], "--initrd and --busybox exclude each other"),
        (["--kernel", "x", "--initrd", "y", "--modules", "z"], "--modules needs --busybox"),
    ],
)
def test_parts_that_make_no_guest(command: Command, cache: Path, arguments: list[str], said: str) -> None:
    done = command("guest", "build", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"pytest-maqet: {said}"), done.stderr
    assert not cache.exists(), "something was begun"


@pytest.mark.parametrize(
    ("part", "name", "said"),
    [
        ("kernel", "missing", "the kernel missing does not exist"),
        ("kernel", ".", "the kernel . is a directory, not a file"),
        ("kernel", "dangling", "the kernel dangling is a dangling link to nowhere"),
        ("kernel", "circle", "the kernel circle is a circle of symbolic links"),
        ("busybox", "missing", "the busybox missing does not exist"),
        ("initrd", "missing", "the initramfs missing does not exist"),
        ("modules", "missing", "the modules directory missing is no directory"),
        ("modules", "empty", "the modules directory empty has no kernel modules (*.ko) in it"),
    ],
)
def test_parts_that_are_not_there(
    command: Command, kernel: Path, busybox: Path, tmp_path: Path, part: str, name: str, said: str
) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "empty").mkdir()
    parts = {"kernel": kernel, "busybox": busybox, part: name}
    if part == "initrd":
        del parts["busybox"]
    done = command("guest", "build", *(word for key, value in parts.items() for word in (f"--{key}", value)))
    assert done.returncode == 1
    assert done.stderr.startswith(f"pytest-maqet: {said}\n"), done.stderr


def test_a_busybox_that_does_not_run(command: Command, kernel: Path, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "text").write_text("no program")
    done = command("guest", "build", "--kernel", kernel, "--busybox", "text")
    assert done.returncode == 1
    assert "does not run on this host" in done.stderr
    assert "hint: a static busybox is needed" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(cache.rglob("kernel")), "a guest that cannot start was kept"
