"""Base directory, run directories, names; hostile places."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_maqet.errors import StartError
from pytest_maqet.runs.base_directory import LONGEST_BASE, base_directory
from pytest_maqet.runs.run_directory import RunDirectory
from pytest_maqet.runs.vm_directory import VmDirectory, file_stem

NOBODY = 65533


@pytest.fixture
def home(base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A private TMPDIR, with no base directory named."""
    monkeypatch.delenv("MAQET_RUN_BASE")
    monkeypatch.setenv("TMPDIR", str(base))
    return base


def other_candidates() -> list[Path]:
    return [Path(f"/var/tmp/maqet-{os.geteuid()}"), Path(f"/tmp/maqet-{os.geteuid()}")]


def test_base_is_made_private_whatever_the_umask(home: Path) -> None:
    old = os.umask(0)
    try:
        found = base_directory()
        run = RunDirectory.create()
        vm = run.new_vm_directory("vm")
        lock = run.lock_path("start")
    finally:
        os.umask(old)
    assert found == home / f"maqet-{os.geteuid()}"
    for path in (found, run.path, vm.path, lock.parent):
        assert path.stat().st_mode & 0o777 == 0o700, f"{path} is open to others under umask 0"
    assert (run.path / "in-use.lease").stat().st_mode & 0o777 == 0o600
    run.close()


def test_symbolic_link_in_the_way_is_passed_over(home: Path, tmp_path: Path) -> None:
    (home / f"maqet-{os.geteuid()}").symlink_to(tmp_path)
    assert base_directory() in other_candidates(), "a planted symbolic link was followed"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o710, 0o701])
def test_open_directory_is_passed_over(home: Path, mode: int) -> None:
    planted = home / f"maqet-{os.geteuid()}"
    planted.mkdir()
    planted.chmod(mode)
    assert base_directory() in other_candidates(), f"a directory with mode {mode:o} was used"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_directory_of_another_user_is_passed_over(home: Path) -> None:
    planted = home / f"maqet-{os.geteuid()}"
    planted.mkdir(mode=0o700)
    os.chown(planted, NOBODY, NOBODY)
    assert base_directory() in other_candidates(), "another user's directory was used"


def test_shared_parent_without_sticky_bit_is_passed_over(home: Path) -> None:
    home.chmod(0o777)
    assert base_directory() in other_candidates(), "a directory that anybody can rename was used"
    home.chmod(0o1777)
    assert base_directory().parent == home


def test_long_tmpdir_is_passed_over(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(home / ("x" * 60)))
    assert base_directory() in other_candidates()


@pytest.mark.parametrize("tmpdir", ["", "relative", "/nonexistent/dir", "/dev/null"])
def test_useless_tmpdir_is_passed_over(home: Path, monkeypatch: pytest.MonkeyPatch, tmpdir: str) -> None:
    monkeypatch.setenv("TMPDIR", tmpdir)
    assert base_directory() in other_candidates()


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (lambda path: path.symlink_to("/"), "it is a symbolic link"),
        (lambda path: path.symlink_to(path), "it is a symbolic link"),
        (lambda path: path.touch(), "it is not a directory"),
        (lambda path: path.mkdir(mode=0o755), "others may get into it (mode 0755 instead of 0700)"),
    ],
)
def test_named_base_that_is_no_good_is_an_error(
    base: Path, monkeypatch: pytest.MonkeyPatch, plant, words: str
) -> None:
    named = base / "named"
    plant(named)
    monkeypatch.setenv("MAQET_RUN_BASE", str(named))
    with pytest.raises(StartError) as caught:
        base_directory()
    assert words in str(caught.value)
    assert str(named) in str(caught.value)
    assert "MAQET_RUN_BASE" in str(caught.value)


def test_named_base_that_is_too_long_is_an_error(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAQET_RUN_BASE", f"/tmp/{'x' * LONGEST_BASE}")
    with pytest.raises(
        StartError, match=f"{LONGEST_BASE + 5} bytes, and sockets below it allow {LONGEST_BASE}"
    ):
        base_directory()


def test_longest_names_still_make_sockets(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    longest = base / ("b" * (LONGEST_BASE - len(str(base)) - 1))
    monkeypatch.setenv("MAQET_RUN_BASE", str(longest))
    run = RunDirectory.create("r" * 40)
    for _ in range(99_999 - 99_990):
        vm = run.new_vm_directory("a very long name of a virtual machine, with ünicode/and more")
    deepest = VmDirectory(vm.path.with_name(vm.path.name.rpartition("-")[0] + "-99999"))
    deepest.path.mkdir()
    names = [deepest.serial_socket("s" * 50), deepest.serial_socket("s" * 16), deepest.agent_socket]
    for path in [*names, deepest.monitor_socket(40)]:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    run.close()


@pytest.mark.parametrize("run_id", ["a", "gw-0_1.x", "0123456789ab"])
def test_short_run_ids_are_kept(base: Path, run_id: str) -> None:
    run = RunDirectory.create(run_id)
    assert run.path == base / run_id
    run.close()


@pytest.mark.parametrize(
    "run_id", ["..", ".", "../../etc", ".hidden", "a b", "é", "x" * 33, "a\0b", "a/b", "\udcff"]
)
def test_strange_run_ids_become_a_digest(base: Path, run_id: str) -> None:
    first, second = RunDirectory.create(run_id), RunDirectory.create(run_id)
    assert first.path == second.path, "the same id must lead all workers to the same directory"
    assert first.path.parent == base
    assert len(first.run_id) == 12
    assert first.run_id.isalnum()
    first.close()
    second.close()


def test_run_without_an_id_is_new(base: Path) -> None:
    runs = [RunDirectory.create() for _ in range(5)]
    assert len({run.path for run in runs}) == 5
    for run in runs:
        run.close()


def test_vm_directories_are_unique_and_readable(run: RunDirectory) -> None:
    names = [run.new_vm_directory(name).path.name for name in ("web", "web", "db", "web", "locks")]
    assert names == ["web-1", "web-2", "db-1", "web-3", "locks-1"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/etc", "a/b", "-x", "x\n", "x" * 300, "日本", "a,b", "\udcff"]
)
def test_strange_names_stay_in_the_directory(run: RunDirectory, name: str) -> None:
    vm = run.new_vm_directory(name)
    assert vm.path.parent == run.path
    for path in (vm.serial_log(name), vm.disk(name), vm.serial_socket(name)):
        assert path.parent == vm.path
        assert path.name.isascii()
        assert "," not in path.name


def test_different_names_have_different_stems() -> None:
    names = ["a b", "a,b", "a_b", "x" * 16, "x" * 17, "x" * 18, "", "_", "é", "è"]
    assert len({file_stem(name) for name in names}) == len(names)


def test_full_or_missing_run_is_one_clear_error(run: RunDirectory) -> None:
    run.close()
    assert run.remove()
    with pytest.raises(StartError, match="cannot be made: No such file or directory"):
        run.new_vm_directory("vm")
    with pytest.raises(StartError, match="the run is over"):
        run.lease("main")
