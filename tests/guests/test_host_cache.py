"""The cache directory: private, made on demand, with one clear error where it can't be had."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pytest_maqet import host_cache
from pytest_maqet.errors import StartError
from pytest_maqet.host_cache import cache_dir


def test_made_on_demand_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAQET_CACHE_DIR", str(tmp_path / "deep" / "cache"))
    folder = cache_dir("guests", "linux")
    assert folder == tmp_path / "deep" / "cache" / "guests" / "linux"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700, "nobody else may look into the cache"
    assert cache_dir("guests", "linux") == folder, "a second call finds what the first one made"


def test_without_the_variable_it_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAQET_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "pytest-maqet"


def test_a_relative_name_means_the_same_place_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAQET_CACHE_DIR", "here")
    assert cache_dir() == tmp_path / "here"


def test_a_file_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("MAQET_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(StartError, match=r"cache is not a directory\nhint: .*MAQET_CACHE_DIR"):
        cache_dir("guests")


def test_a_place_where_nothing_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAQET_CACHE_DIR", "/proc/no-such-thing/cache")
    with pytest.raises(StartError, match=r"/proc/no-such-thing/cache cannot be made"):
        cache_dir()


def test_a_directory_that_others_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.setenv("MAQET_CACHE_DIR", str(tmp_path))
    with pytest.raises(StartError, match=r"can be written by others \(mode 0777\)"):
        cache_dir()


@pytest.fixture
def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache cannot be made, and the places to go to instead are this test's own."""
    monkeypatch.delenv("MAQET_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/no-such-thing")
    monkeypatch.setattr(host_cache, "_FALLBACKS", (tmp_path / "var", tmp_path / "tmp"))
    (tmp_path / "var").mkdir()
    (tmp_path / "tmp").mkdir()
    return tmp_path


def test_without_a_home_another_private_directory_is_made_and_said(no_home: Path) -> None:
    folder = cache_dir("templates")
    assert folder == no_home / "var" / f"maqet-cache-{os.geteuid()}" / "templates"
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    said = host_cache.instead_of_home()
    assert f"{folder.parent} is the cache, since the cache directory /proc/no-such-thing" in said


def test_a_home_that_does_not_exist_is_not_made(no_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(no_home / "nobody"))
    assert cache_dir() == no_home / "var" / f"maqet-cache-{os.geteuid()}"
    assert not (no_home / "nobody").exists(), "a home was made for a user who has none"
    assert "nobody does not exist" in host_cache.instead_of_home()


def test_what_others_have_laid_there_is_not_taken(no_home: Path) -> None:
    name = f"maqet-cache-{os.geteuid()}"
    (no_home / "own").mkdir(mode=0o700)
    (no_home / "var" / name).symlink_to(no_home / "own")
    assert cache_dir() == no_home / "tmp" / name, "a link was followed"
    (no_home / "tmp" / name).chmod(0o755)
    with pytest.raises(StartError, match="/proc/no-such-thing/pytest-maqet cannot be made"):
        cache_dir()
    assert host_cache.instead_of_home() == "", "there is none"


def test_nothing_is_said_of_the_usual_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAQET_CACHE_DIR", str(tmp_path / "cache"))
    assert host_cache.instead_of_home() == ""
