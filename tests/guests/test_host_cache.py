"""The cache directory: private, made on demand, with one clear error where it can't be had."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

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
