"""Overlays and empty disks, made by the real qemu-img and written by a real QEMU."""

from __future__ import annotations

import hashlib
import json
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from image_files import STRANGE_NAMES, QemuIo, make_image, written_by_qemu

from pytest_maqet.errors import StartError
from pytest_maqet.qemu.inputs import Drive
from pytest_maqet.storage.images import probe_image
from pytest_maqet.storage.overlays import create_disk, create_overlay
from pytest_maqet.storage.report import storage_info


def info(path: Path) -> dict[str, Any]:
    """What qemu-img says of an image and all that it was made on."""
    command = ["qemu-img", "info", "--output=json", "--backing-chain", f"file:{path}"]
    found: list[dict[str, Any]] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return {**found[0], "chain": len(found)}


def digest(path: Path) -> str:
    """The checksum of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("image_format", ["qcow2", "raw"])
def test_the_base_is_never_written(tmp_path: Path, image_format: str) -> None:
    base = make_image(tmp_path / "base", image_format=image_format)
    before, state = digest(base), base.stat()
    overlay = tmp_path / "overlay"
    create_overlay(probe_image(base), overlay)
    assert stat.S_IMODE(overlay.stat().st_mode) == 0o600
    written_by_qemu(overlay, "write -P 0xab 4096 4096")
    assert digest(base) == before, "a guest's write went into the base image"
    assert base.stat().st_mtime_ns == state.st_mtime_ns, "the base image was opened for writing"
    written_by_qemu(overlay, "read -P 0xab 4096 4096")  # and it is in the overlay


@pytest.mark.parametrize("name", STRANGE_NAMES)
def test_strange_names(tmp_path: Path, name: str) -> None:
    base = make_image(tmp_path / name)
    (tmp_path / "vm").mkdir()
    overlay = tmp_path / "vm" / name
    create_overlay(probe_image(base), overlay)
    written_by_qemu(overlay, "write -P 1 0 512")
    assert info(overlay)["chain"] == 2, "the overlay does not lie on the base"


def test_overlays_on_one_base_are_apart(tmp_path: Path, qcow2: Path) -> None:
    base = probe_image(qcow2)
    for number in (1, 2):
        create_overlay(base, tmp_path / f"overlay{number}")
        written_by_qemu(tmp_path / f"overlay{number}", f"write -P {number} 0 512")
    for number in (1, 2):
        written_by_qemu(tmp_path / f"overlay{number}", f"read -P {number} 0 512")


def test_an_overlay_on_an_image_that_others_use(tmp_path: Path, qcow2: Path, qemu_io: QemuIo) -> None:
    create_overlay(probe_image(qcow2), tmp_path / "first")
    with qemu_io(tmp_path / "first"):  # another VM is running from the same base
        create_overlay(probe_image(qcow2), tmp_path / "second")
        written_by_qemu(tmp_path / "second", "write -P 1 0 512")


def test_size(tmp_path: Path, qcow2: Path) -> None:
    base = probe_image(qcow2)
    create_overlay(base, tmp_path / "larger", size=5 << 20)
    create_overlay(base, tmp_path / "smaller", size=4096)
    create_disk(tmp_path / "empty", size=7 << 20)
    assert info(tmp_path / "larger")["virtual-size"] == 5 << 20
    assert info(tmp_path / "smaller")["virtual-size"] == 1 << 20, "the base was cut off"
    empty = info(tmp_path / "empty")
    assert (empty["virtual-size"], empty["format"], empty["chain"]) == (7 << 20, "qcow2", 1)


def test_a_file_in_the_way_is_not_overwritten(tmp_path: Path, qcow2: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("precious")
    for make in (
        lambda: create_overlay(probe_image(qcow2), mine),
        lambda: create_disk(mine, size=1 << 20),
    ):
        with pytest.raises(StartError, match=rf"failed: {mine}: File exists"):
            make()
    assert mine.read_text() == "precious"


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(StartError, match="File exists"):
        create_disk(tmp_path / "link", size=1 << 20)
    assert not (tmp_path / "elsewhere").exists()


def test_no_directory_for_it(tmp_path: Path, qcow2: Path) -> None:
    target = tmp_path / "gone" / "disk"
    with pytest.raises(StartError, match=rf"^making an overlay on {qcow2} failed: {target}: No such file"):
        create_overlay(probe_image(qcow2), target)


def test_a_base_whose_own_base_is_gone(tmp_path: Path, qcow2: Path) -> None:
    middle = tmp_path / "middle"
    create_overlay(probe_image(qcow2), middle)
    qcow2.unlink()
    with pytest.raises(StartError) as caught:
        create_overlay(probe_image(middle), tmp_path / "top")
    assert f"Could not open '{qcow2}': No such file or directory" in caught.value.message
    assert "must stay where they were" in (caught.value.hint or "")
    assert not (tmp_path / "top").exists(), "half a disk was left"


def test_a_base_with_too_long_a_path(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["d" * 200] * 5)
    folder.mkdir(parents=True)
    base = make_image(folder / "base")
    with pytest.raises(StartError, match="is too long for an overlay on it: at most 1018 bytes fit"):
        create_overlay(probe_image(base), tmp_path / "overlay")


def test_the_longest_path_of_a_base(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["d" * 200] * 4)
    folder.mkdir(parents=True)
    base = make_image(folder / ("b" * (1017 - len(str(folder)))))
    create_overlay(probe_image(base), tmp_path / "overlay")
    assert info(tmp_path / "overlay")["chain"] == 2


def test_too_large(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=f"^making a disk of {1 << 62} bytes failed: qemu-img: "):
        create_disk(tmp_path / "disk", size=1 << 62)
    assert not (tmp_path / "disk").exists(), "half a disk was left"


def test_a_full_disk(small_disk: Path, qcow2: Path) -> None:
    (small_disk / "fill").write_bytes(bytes(200 << 10))
    for make in (
        lambda: create_overlay(probe_image(qcow2), small_disk / "disk"),
        lambda: create_disk(small_disk / "disk", size=1 << 20),
    ):
        with pytest.raises(StartError) as caught:
            make()
        assert "No space left on device" in caught.value.message
        assert (caught.value.hint or "").startswith("the disk is full"), caught.value.hint
        assert not (small_disk / "disk").exists(), "half a disk was left on a full disk"


def test_storage_info(tmp_path: Path, qcow2: Path) -> None:
    create_disk(tmp_path / "data", size=1 << 30)
    rows = storage_info(
        [
            Drive("data", tmp_path / "data", "qcow2", interface="virtio"),
            Drive("tools", qcow2, "raw", interface="ide", readonly=True, media="cdrom"),
            Drive("tray", None, "raw", interface="ide", readonly=True, media="cdrom"),
            Drive("gone", tmp_path / "gone", "raw", interface="scsi"),
        ]
    )
    assert [(row["name"], row["type"], row["exists"], row["readonly"]) for row in rows] == [
        ("data", "disk", True, False),
        ("tools", "cdrom", True, True),
        ("tray", "cdrom", False, True),
        ("gone", "disk", False, False),
    ]
    taken = rows[0]["bytes"]
    assert 0 < taken < 1 << 20, f"an empty disk of 1 GiB takes {taken} bytes of the host's"
    assert [row["bytes"] for row in rows[2:]] == [0, 0]
    assert rows[0] == {
        "name": "data",
        "type": "disk",
        "readonly": False,
        "file": tmp_path / "data",
        "format": "qcow2",
        "interface": "virtio",
        "exists": True,
        "bytes": taken,
    }
