"""Which program is taken, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_maqet.config import VmConfig
from pytest_maqet.errors import StartError
from pytest_maqet.qemu.binary import find_binary


def program(path: Path, mode: int = 0o755) -> Path:
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


def test_the_program_of_the_architecture_is_taken_from_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = program(tmp_path / "qemu-system-riscv64")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary(VmConfig(name="web", arch="riscv64")) == wanted


@pytest.mark.parametrize(
    ("arch", "debian", "fedora"),
    [
        ("x86_64", "qemu-system-x86 ", "qemu-system-x86 "),
        ("i386", "qemu-system-x86 ", "qemu-system-x86 "),
        ("aarch64", "qemu-system-arm ", "qemu-system-aarch64 "),
        ("riscv64", "qemu-system-misc ", "qemu-system-riscv "),
    ],
)
def test_a_missing_program_names_the_package(
    arch: str, debian: str, fedora: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartError, match=f"VM 'web' needs qemu-system-{arch}, and there is none") as caught:
        find_binary(VmConfig(name="web", arch=arch))
    hint = str(caught.value.hint)
    assert f"apt install {debian}" in hint, hint
    assert f"dnf install {fedora}" in hint, hint


def test_a_named_program_is_searched_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = program(tmp_path / "my-qemu")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary(VmConfig(name="web", binary="my-qemu")) == wanted


def test_a_named_path_is_taken(tmp_path: Path) -> None:
    wanted = program(tmp_path / "qemu of mine")
    assert find_binary(VmConfig(name="web", binary=str(wanted))) == wanted


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: path.symlink_to(path), "does not exist"),
        (lambda path: path.symlink_to("/nonexistent"), "does not exist"),
        (lambda path: program(path, 0o644), "is not executable"),
    ],
)
def test_a_named_path_that_cannot_be_run_is_refused(make: object, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "qemu"
    make(path)  # type: ignore[operator]
    with pytest.raises(StartError, match=f"VM 'web': binary '{path}' {reason}"):
        find_binary(VmConfig(name="web", binary=str(path)))


def test_a_name_that_is_nowhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartError, match="binary 'qemu-kvm' is not on the PATH"):
        find_binary(VmConfig(name="web", binary="qemu-kvm"))
