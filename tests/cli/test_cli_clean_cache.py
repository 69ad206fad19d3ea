"""`pytest-maqet clean` and the cache: what is outdated, too much or old goes, unless somebody uses it."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_maqet.errors import LockTimeout
from pytest_maqet.qemu import accelerator, board, capabilities
from pytest_maqet.qemu.unneeded import KINDS
from pytest_maqet.runs.locks import held_lock
from pytest_maqet.runs.use_marks import mark_used
from pytest_maqet.storage.images import probe_image
from pytest_maqet.storage.overlays import create_overlay
from pytest_maqet.templates.manifest import FORM, RAM, FileState, Manifest
from pytest_maqet.templates.store import TemplateStore

Clean = Callable[..., "subprocess.CompletedProcess[str]"]

KEYS = [digit * 32 for digit in "abcdef"]
LONG_AGO = time.time() - 40 * 86400


@pytest.fixture(autouse=True)
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """No runs."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        monkeypatch.setenv("MAQET_RUN_BASE", path)
        yield Path(path)


@pytest.fixture
def store(cache: Path) -> TemplateStore:
    return TemplateStore.kept()


def made(store: TemplateStore, key: str, *, sources: tuple[Path, ...] = (), used: float = 0.0) -> Path:
    """A template of 64 KiB."""
    with store.draft(key, 1) as draft:
        (draft.path / RAM).write_bytes(b"m" * 65536)
        manifest = Manifest(
            form=FORM, key=key, vm="web", made=1.0, boot_seconds=2.0, memory=1, qemu="7.2", machine="q35",
            state_sha256="0" * 64, drives=(), consoles={}, channel=None, wake="none", exec=False,
            files={RAM: FileState.of(draft.path / RAM)}, folder=os.path.realpath(draft.path),
            sources={str(path): FileState.of(path) for path in sources},
        )  # fmt: skip
        path = store.publish(draft, manifest).path
    if used:
        os.utime(path / "use", (used, used))
    return path


def old(path: Path) -> Path:
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def test_templates_whose_sources_are_gone_or_changed(
    clean: Clean, store: TemplateStore, tmp_path: Path
) -> None:
    images = [tmp_path / name for name in ("kept.img", "gone.img", "changed.img")]
    for image in images:
        image.write_text("x")
    good, gone, changed = [
        made(store, key, sources=(image,)) for key, image in zip(KEYS, images, strict=False)
    ]
    unknown = made(store, KEYS[3])
    images[1].unlink()
    images[2].write_text("another")
    looked = clean("-n").stdout
    assert f"would remove template {gone} (" in looked
    assert f"{images[1]}, which it was made of, is gone (of VM 'web')" in looked
    assert f"{images[2]}, which it was made of, has changed since" in looked
    assert gone.exists()
    done = clean()
    assert (done.returncode, done.stderr) == (0, "")
    assert not gone.exists()
    assert not changed.exists()
    assert good.exists(), "a template that can be used was removed"
    assert unknown.exists(), "one that does not say what it was made of is kept"


def test_the_limit_takes_what_was_used_longest_ago_but_nothing_in_use(
    clean: Clean, store: TemplateStore
) -> None:
    paths = [made(store, key, used=1000.0 + number) for number, key in enumerate(KEYS[:4])]
    found = store.find(KEYS[0])
    assert found is not None
    os.utime(paths[0] / "use", (1000.0, 1000.0))
    lease = found[1]
    size = str(2 * 80000)
    looked = clean("-n", "--templates-size", size).stdout
    assert f"in use: template {paths[0]} (of VM 'web')\n" in looked
    assert looked.count("the kept ones are over the limit") == 2, looked
    assert clean("--templates-size", size).returncode == 0
    assert [path.exists() for path in paths] == [True, False, False, True]
    assert clean("--templates").returncode == 0
    assert [path.exists() for path in paths] == [True, False, False, False]
    lease.close()
    assert clean("--templates").returncode == 0
    assert not paths[0].exists()


def test_drafts_that_nobody_makes(clean: Clean, store: TemplateStore) -> None:
    with store.draft(KEYS[0], 1) as draft:
        abandoned = store.folder / f"{KEYS[1]}-01234567"
        abandoned.mkdir(mode=0o700)
        (abandoned / "use").touch()
        young = store.folder / f"{KEYS[2]}-01234567"
        young.mkdir()
        looked = clean("-n", "--all").stdout
        assert f"in use: template {draft.path} (being made, or used by clones)" in looked
        assert f"would remove template {abandoned} (" in looked
        assert "it was replaced or never finished, and nobody has it" in looked
        assert clean("--all").returncode == 0
        assert draft.path.exists(), "a template was removed while it was made"
        assert young.exists(), "its maker may be about to lock it"
        assert not abandoned.exists()


def test_links_locks_and_reasons_that_mean_nothing_any_more(clean: Clean, store: TemplateStore) -> None:
    path = made(store, KEYS[0])
    for key in KEYS[:4]:
        with store.lock(key, timeout=1, vm="web", owner="me"):
            pass
    store.refuse(KEYS[1], "no")
    store.refuse(KEYS[2], "no")
    old(store.folder / "refused" / f"{KEYS[2]}.json")
    dangling = store.folder / KEYS[3]
    dangling.symlink_to("gone")
    foreign = store.folder / KEYS[4]
    foreign.write_text("a file by that name")
    with store.lock(KEYS[2], timeout=1, vm="web", owner="me"):
        assert clean("--all", "--templates-size", "1G").returncode == 0
        with pytest.raises(LockTimeout), store.lock(KEYS[2], timeout=0, vm="web", owner="you"):
            pass
    assert not path.exists()
    locks = {lock.stem for lock in (store.folder / "locks").glob("*.lock")}
    assert KEYS[2] in locks, "a lock that is held was removed"
    assert KEYS[1] not in locks
    assert [file.stem for file in (store.folder / "refused").iterdir()] == [KEYS[1]]
    assert not dangling.is_symlink()
    assert foreign.exists()


def test_a_damaged_template_goes_and_another_versions_stays(clean: Clean, store: TemplateStore) -> None:
    damaged, other = made(store, KEYS[0]), made(store, KEYS[1])
    (damaged / RAM).write_bytes(b"shorter")
    manifest = other / "manifest.json"
    manifest.chmod(0o600)
    manifest.write_text(manifest.read_text().replace(f'"form": {FORM}', f'"form": {FORM + 1}'))
    done = clean()
    assert f"removed template {damaged} (" in done.stdout
    assert "it is damaged: its file memory.ram was changed since it was made" in done.stdout
    assert other.exists()


def test_images(clean: Clean, cache: Path, tmp_path: Path) -> None:
    """Old ones go; not what a process or a QEMU uses, and not a download that goes on."""
    cache.mkdir(mode=0o700)
    folder = cache / "images"
    folder.mkdir()
    stale, used, running, new = [folder / f"sha256-{digit * 64}" for digit in "1234"]
    for image in (stale, used, running, new):
        image.write_bytes(b"\0" * 65536)
        image.chmod(0o400)
    for image in (stale, used, running):
        old(image)
    broken = old(_touched(folder / f"sha256-{'6' * 64}.part"))
    moving = old(_touched(folder / f"sha256-{'5' * 64}.part"))
    (folder / f"sha256-{'7' * 64}").symlink_to("/etc/passwd")
    (folder / "notes.txt").touch()
    mark_used(used)
    old(folder / f"{used.name}.use")
    overlay = tmp_path / "overlay.qcow2"
    create_overlay(probe_image(running, "raw"), overlay)
    with held_lock(moving.with_suffix(".lock"), timeout=1, what="x", owner="me"), _qemu(overlay):
        looked = clean("-n")
        assert f"in use: image {used}\n" in looked.stdout
        assert f"in use: image {running}\n" in looked.stdout
        assert not (folder / f"{stale.name}.use").exists(), "looking has made a file"
        done = clean()
        assert f"not removed: image {moving}: it is in use now" in done.stderr
        assert done.returncode == 0, "what is in use is no failure"
        assert clean("--images").returncode == 0
    left = {path.name for path in folder.iterdir() if path.suffix not in (".use", ".lock", ".holder")}
    assert left == {used.name, running.name, moving.name, f"sha256-{'7' * 64}", "notes.txt"}
    assert not broken.exists()
    assert Path("/etc/passwd").exists()


def test_guests(clean: Clean, cache: Path) -> None:
    (cache / "guests").mkdir(parents=True, mode=0o700)
    cache.chmod(0o700)
    recent, stale, used = [_guest(cache / "guests" / f"linux-x86_64-{digit * 12}") for digit in "123"]
    old(stale)
    (cache / "guests" / "mine").mkdir()
    (recent / "replaced").mkdir()
    mark_used(used)
    done = clean()
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert f"in use: guest {used}\n" in done.stdout
    assert not stale.exists()
    assert (recent / "current" / "kernel").exists()
    assert not (recent / "replaced").exists()
    with held_lock(recent / "build.lock", timeout=1, what="x", owner="me"):
        assert "it is in use now" in clean("--images").stderr, "a guest that is being built"
    assert clean("--images").returncode == 0
    assert not recent.exists()
    assert used.exists()
    assert (cache / "guests" / "mine").exists()


def test_answers(clean: Clean, cache: Path) -> None:
    assert {accelerator._KIND, board._KIND, capabilities._KIND} == set(KINDS)
    folder = cache / "qemu-boards"
    folder.mkdir(parents=True, mode=0o700)
    cache.chmod(0o700)
    fresh, stale = folder / ("1" * 32 + ".json"), folder / ("2" * 32 + ".json")
    fresh.touch()
    old(_touched(stale))
    assert clean().returncode == 0
    assert fresh.exists()
    assert not stale.exists()
    assert clean("--all").returncode == 0
    assert not fresh.exists()


def test_folders_of_the_cache_that_are_links_are_not_followed(
    clean: Clean, cache: Path, tmp_path: Path
) -> None:
    cache.mkdir(mode=0o700)
    for name in ("templates", "images", "guests", "qemu-boards"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{KEYS[0]}-01234567").mkdir()
        old(tmp_path / name / f"{KEYS[0]}-01234567")
        (cache / name).symlink_to(tmp_path / name)
    assert clean("--all").stdout == "nothing to remove\n"
    assert (tmp_path / "templates" / f"{KEYS[0]}-01234567").exists()


def test_a_cache_open_to_others_is_left_alone(clean: Clean, cache: Path) -> None:
    cache.mkdir()
    cache.chmod(0o777)
    done = clean("--all")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "nothing to remove")
    assert f"left alone: the cache directory {cache} can be written by others (mode 0777)\n" in done.stdout


@contextmanager
def _qemu(disk: Path) -> Iterator[None]:
    """A QEMU that has the disk, and what it is made on, open."""
    drive = f"file={disk},format=qcow2,if=none"
    with subprocess.Popen(
        ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-S", "-drive", drive, "-qmp", "stdio"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b'{"QMP"')
        try:
            yield
        finally:
            process.kill()


def _touched(path: Path) -> Path:
    path.touch()
    return path


def _guest(home: Path) -> Path:
    (home / "0123456789abcdef").mkdir(parents=True)
    (home / "0123456789abcdef" / "kernel").touch()
    (home / "current").symlink_to("0123456789abcdef")
    return home
