"""What is a base image and what is not, each with its error, by the real qemu-img."""

from __future__ import annotations

import gzip
import lzma
import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from image_files import STRANGE_NAMES, QemuIo, make_image

from pytest_maqet.config import BuiltinImage, ImagePath
from pytest_maqet.errors import StartError
from pytest_maqet.storage.images import BaseImage, probe_image, resolve_image


@pytest.mark.parametrize("image_format", ["qcow2", "raw", "vmdk", "vdi", "qed"])
def test_formats(tmp_path: Path, image_format: str) -> None:
    path = make_image(tmp_path / "image", "3M", image_format)
    assert probe_image(path) == BaseImage(path, image_format, 3 << 20)


@pytest.mark.parametrize("name", STRANGE_NAMES)
def test_strange_names(tmp_path: Path, name: str) -> None:
    path = make_image(tmp_path / name)
    assert resolve_image(ImagePath(path=path)) == BaseImage(path, "qcow2", 1 << 20)


def test_a_relative_name_that_looks_like_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_image(tmp_path / "-U")
    monkeypatch.chdir(tmp_path)
    assert probe_image(Path("-U")).format == "qcow2"


def test_a_link_to_an_image(tmp_path: Path, qcow2: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(qcow2)
    assert probe_image(link) == BaseImage(link, "qcow2", 1 << 20)


def _nothing(path: Path) -> None:
    """Leave the place empty."""


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_nothing, "does not exist"),
        (Path.mkdir, "is a directory, not a file"),
        (lambda path: path.symlink_to("gone"), "is a dangling link to gone"),
        (_loop, "is a circle of symbolic links"),
        (_fifo, "is neither a file nor a block device"),
        (_socket, "is neither a file nor a block device"),
        (Path.touch, "is empty: there is no disk in it"),
    ],
    ids=["missing", "directory", "dangling", "circle", "fifo", "socket", "empty"],
)
def test_what_is_no_image(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    path = tmp_path / "x"
    make(path)
    with pytest.raises(StartError) as caught:
        resolve_image(ImagePath(path=path))
    assert str(caught.value) == f"the image {path} {said}"


def test_a_file_as_a_directory_of_the_path(qcow2: Path) -> None:
    with pytest.raises(StartError, match=r"base\.qcow2/x does not exist: a part of its path is a file"):
        probe_image(qcow2 / "x")


def test_unreadable(as_nobody: Callable[[], AbstractContextManager[Path]]) -> None:
    with as_nobody() as folder:
        os.seteuid(0)
        secret = make_image(folder / "image")
        secret.chmod(0o600)
        os.setresuid(65534, 65534, 0)
        with pytest.raises(StartError) as caught:
            probe_image(secret)
    assert str(caught.value) == f"the image {secret} cannot be read: permission denied"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"QFI\xfb\0\0\0\x09" + bytes(504), "Unsupported qcow2 version 9"),
        (b"QFI\xfb\0\0\0\x03", "cluster size"),
        (b"KDMV" + bytes(60), "L1 entry size"),
    ],
    ids=["qcow2 of the future", "cut off", "vmdk"],
)
def test_damaged(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(content)
    with pytest.raises(StartError, match=rf"^looking into the image {path} failed: qemu-img: .*{said}"):
        probe_image(path)
    assert probe_image(path, "raw").format == "raw", "what is declared raw need not be anything else"


@pytest.mark.parametrize(
    ("packer", "pack"),
    [("gzip", gzip.compress), ("xz", lzma.compress)],
)
def test_packed(tmp_path: Path, packer: str, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "image"
    path.write_bytes(pack(bytes(4096)))
    with pytest.raises(StartError, match=f"image is packed with {packer}\nhint: unpack it: `{packer} -d"):
        probe_image(path)
    assert probe_image(path, "raw").format == "raw", "what is declared raw is believed"


def test_any_other_file_is_raw(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"boot" * 300)
    image = probe_image(tmp_path / "image")
    assert (image.format, image.size) == ("raw", 1536), "a raw disk has whole sectors"


@pytest.mark.parametrize(
    ("is_one", "declared", "cure"),
    [
        ("raw", "qcow2", "say what it is, `type: raw`"),
        ("qcow2", "vmdk", "say what it is: `type: qcow2`"),
        ("vdi", "qcow2", "make a qcow2 image of it: `qemu-img convert -f vdi -O qcow2"),
    ],
)
def test_another_format_than_declared(tmp_path: Path, is_one: str, declared: str, cure: str) -> None:
    path = make_image(tmp_path / "image", image_format=is_one)
    with pytest.raises(StartError) as caught:
        probe_image(path, declared)
    assert caught.value.message == f"the image {path} should be {declared}, and is {is_one}"
    assert (caught.value.hint or "").startswith(cure), caught.value.hint


def test_a_qcow2_image_declared_raw_is_raw(qcow2: Path) -> None:
    raw = probe_image(qcow2, "raw")
    assert (raw.format, -(-qcow2.stat().st_size // 512) * 512) == ("raw", raw.size)
    assert probe_image(qcow2).format == "qcow2", "one answer was taken for the other question"


def test_asked_once_for_each_state(qcow2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = probe_image(qcow2)
    with monkeypatch.context() as without:
        without.setenv("PATH", "/nowhere")
        assert probe_image(qcow2) == first, "qemu-img was asked again, though nothing has changed"
    make_image(qcow2, "2M")
    assert probe_image(qcow2).size == 2 << 20, "the file has changed, and the old answer was given"


def test_an_image_that_is_written(qcow2: Path, qemu_io: QemuIo) -> None:
    with qemu_io(qcow2), pytest.raises(StartError) as caught:
        probe_image(qcow2)
    assert "Is another process using the image" in caught.value.message
    assert caught.value.hint == "a program has the image open for writing; a base image must rest"
    assert probe_image(qcow2).format == "qcow2", "it is at rest now"


def test_an_image_that_is_read(qcow2: Path, qemu_io: QemuIo) -> None:
    with qemu_io(qcow2, "-r"):
        assert probe_image(qcow2).format == "qcow2", "many may read an image at once"


def test_without_qemu_img(qcow2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(StartError) as caught:
        probe_image(qcow2)
    assert str(caught.value) == (
        f"looking into the image {qcow2} needs qemu-img, which is not installed\n"
        "hint: install it: `apt install qemu-utils` (Debian, Ubuntu) or `dnf install qemu-img` (Fedora)"
    )


def test_a_qemu_img_that_does_not_run(qcow2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "qemu-img"
    program.write_bytes(b"\x7fELF")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartError, match=f"failed: {program} does not run: Exec format error"):
        probe_image(qcow2)


def test_a_qemu_img_that_hangs(qcow2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "qemu-img"
    program.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("pytest_maqet.storage.image_tool.PATIENCE", 0.2)
    with pytest.raises(StartError, match=r"qemu-img did not end within 0\.2 s"):
        probe_image(qcow2)


def test_a_builtin_guest_is_no_image() -> None:
    with pytest.raises(StartError, match="builtin:nano is a guest, not an image file"):
        resolve_image(BuiltinImage(name="nano"))
