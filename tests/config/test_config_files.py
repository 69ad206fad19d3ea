"""Configuration files that cannot be read: one clear error each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_maqet.config import discover, load_config
from pytest_maqet.errors import ConfigError


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config([path], environ={})
    message = str(caught.value)
    assert str(path) in message or path.name in message, f"the file is not named: {message}"
    return message


def test_missing(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.yaml").endswith("does not exist")


def test_directory(tmp_path: Path) -> None:
    assert refused(tmp_path).endswith("is a directory, not a file")


def test_part_of_the_path_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "a part of its path is a file" in refused(tmp_path / "file" / "maqet.yaml")


def test_circle_of_links(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("b.yaml")
    (tmp_path / "b.yaml").symlink_to("a.yaml")
    assert "leads back to itself" in refused(tmp_path / "a.yaml")


def test_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("gone.yaml")
    assert "is a dangling link: gone.yaml does not exist" in refused(tmp_path / "a.yaml")


def test_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("vms: {web: {}}")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    assert "permission denied" in refused(path)


def test_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    assert "is a FIFO, not a file" in refused(tmp_path / "a.yaml")


def test_device() -> None:
    assert "is a character device, not a file" in refused(Path("/dev/zero"))


def test_nul_in_the_name() -> None:
    with pytest.raises(ConfigError, match="is no file name"):
        load_config([Path("a\0b")], environ={})


@pytest.mark.parametrize("text", [b"", b"  \n\n", b"\n"])
def test_empty(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(text)
    message = refused(path)
    assert "is empty" in message
    assert "hint: describe a VM in it" in message


@pytest.mark.parametrize("text", ["# comment\n", "---\n", "null\n", "~"])
def test_nothing_in_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert "has nothing but comments in it" in refused(path)


@pytest.mark.parametrize(
    ("text", "found"), [("- a\n- b\n", "found a list"), ("hello", "found just the text 'hello'"), ("5", "5")]
)
def test_no_mapping(tmp_path: Path, text: str, found: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert found in refused(path)


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"vms:\n  web: \xff\n")
    assert "a.yaml:2:8: byte 0xff is not UTF-8" in refused(path)


def test_binary_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"QFI\xfb" + bytes(1000))
    assert "is not UTF-8" in refused(path)


def test_byte_order_mark_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfvms: {web: {}}")
    assert list(load_config([path], environ={}).vms) == ["web"]


def test_every_bad_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config([tmp_path / "a.yaml", tmp_path / "b.yaml"], environ={})
    assert len(caught.value.problems) == 2, "the second file's fault is told as well"


def test_no_file_at_all() -> None:
    with pytest.raises(ConfigError, match="no configuration file was given"):
        load_config([], environ={})


def test_discovery(tmp_path: Path) -> None:
    assert discover(tmp_path) == []
    (tmp_path / "maqet.yml").write_text("vms: {}")
    assert discover(tmp_path) == [tmp_path / "maqet.yml"]
    (tmp_path / "maqet.yaml").write_text("vms: {}")
    with pytest.raises(ConfigError, match="only one can be meant"):
        discover(tmp_path)
