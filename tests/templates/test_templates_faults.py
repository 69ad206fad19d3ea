"""Templates that are damaged, forbidden, in the way, or made on a disk that is full: said, and lived with."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from manager_rig import acquired, last_start

from pytest_maqet.errors import GuestPanic, NotSupported, StartError
from pytest_maqet.templates.folders import USE
from pytest_maqet.templates.manifest import RAM, STATE
from pytest_maqet.templates.store import TemplateStore

NANO = {"image": "builtin:nano", "memory": "16M"}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")


def notes(manager) -> str:
    return "\n".join(manager.stats()["notes"])


def test_a_truncated_state_is_made_anew_and_said(new_manager, store):
    acquired(new_manager({"nano": NANO}), "nano")
    state = store.all()[0].path / STATE
    state.chmod(0o600)
    state.write_bytes(state.read_bytes()[:-1])
    manager = new_manager({"nano": NANO})
    assert acquired(manager, "nano").started_by == "clone"
    assert "changed since it was made" in notes(manager)
    assert len(manager.stats()["templates"]) == 1, "it was not made anew"


def test_edited_memory_is_made_anew_and_said(new_manager, store):
    acquired(new_manager({"nano": NANO}), "nano")
    with (store.all()[0].path / RAM).open("r+b") as memory:
        memory.seek(0x1000)
        memory.write(b"edited")
    manager = new_manager({"nano": NANO})
    assert acquired(manager, "nano").started_by == "clone"
    assert "memory.ram was changed since it was made; it is made anew" in notes(manager)


def test_a_cache_that_was_moved_is_no_trap(new_manager, own_cache, monkeypatch):
    # The disks of a template have its path in them: a clone would not find them, in this run and the next.
    vms = {"nano": {**NANO, "storage": [{"name": "data", "size": "8M"}]}}
    acquired(new_manager(vms), "nano")
    moved = own_cache.rename(own_cache.with_name("moved"))
    monkeypatch.setenv("MAQET_CACHE_DIR", str(moved))
    manager = new_manager(vms)
    assert acquired(manager, "nano").started_by == "clone"
    assert "was moved or copied from" in notes(manager)
    assert len(manager.stats()["templates"]) == 1, "it was not made anew"


def test_a_state_that_qemu_refuses_costs_the_template_and_nothing_else(new_manager, store):
    acquired(new_manager({"nano": NANO}), "nano")
    path = store.all()[0].path
    state = path / STATE
    state.chmod(0o600)
    state.write_bytes(b"\0" * 1000)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["state_sha256"] = hashlib.sha256(state.read_bytes()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest))
    manager = new_manager({"nano": NANO})
    vm = acquired(manager, "nano")
    assert vm.started_by == "clone"
    vm.console.send("hello\n")
    vm.wait.console("echo: hello", timeout=5)
    assert "was thrown away, a clone did not come up" in notes(manager)
    assert store.all()[0].path != path


def test_an_open_directory_is_refused_and_the_vm_boots(new_manager, own_cache):
    (own_cache / "templates").mkdir(mode=0o755)
    (own_cache / "templates").chmod(0o755)
    manager = new_manager({"nano": NANO})
    assert acquired(manager, "nano").started_by == "boot"
    assert "is open to others (mode 0755" in last_start(manager)["reason"]
    assert "is open to others" in notes(manager)


@needs_root
def test_a_directory_of_another_user_is_refused_and_the_vm_boots(new_manager, own_cache):
    (own_cache / "templates").mkdir(mode=0o700)
    os.chown(own_cache / "templates", 12345, 12345)
    manager = new_manager({"nano": NANO})
    assert acquired(manager, "nano").started_by == "boot"
    assert "belongs to user id 12345" in last_start(manager)["reason"]


def test_start_clone_does_not_fall_back(new_manager, own_cache):
    (own_cache / "templates").mkdir()
    (own_cache / "templates").chmod(0o755)
    manager = new_manager({"nano": {**NANO, "start": "clone"}})
    with pytest.raises(NotSupported, match="open to others"):
        acquired(manager, "nano")


@pytest.fixture
def small_disk(own_cache: Path) -> Iterator[Path]:
    """The templates' directory on a file system of 8 MiB."""
    folder = own_cache / "templates"
    folder.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M,mode=0700", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@needs_root
def test_a_disk_without_room_is_said_and_the_vm_boots(new_manager, small_disk):
    manager = new_manager({"nano": NANO})
    assert acquired(manager, "nano").started_by == "boot"
    assert "MiB free, a template may need" in last_start(manager)["reason"]
    assert not [path for path in small_disk.iterdir() if path.name != "locks"], "something was left"


@needs_root
def test_a_disk_that_fills_up_meanwhile_is_said_and_the_vm_boots(new_manager, small_disk, monkeypatch):
    # The check beforehand would see it: here it finds room, and the disk is full when memory is written.
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(1 << 40, 0, 1 << 40))
    (small_disk / "ballast").write_bytes(b"x" * ((8 << 20) - 65536))
    manager = new_manager({"nano": NANO})
    assert acquired(manager, "nano").started_by == "boot"
    reason = last_start(manager)["reason"]
    assert "full" in reason or "No space left" in reason, reason


@needs_root
def test_a_read_only_cache_is_said_and_the_vm_boots(new_manager, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    manager = new_manager({"nano": NANO})
    assert acquired(manager, "nano").started_by == "boot"
    reason = last_start(manager)["reason"]
    assert "not writable" in reason or "Read-only file system" in reason, reason


def test_a_guest_that_panics_right_after_it_wakes(new_manager, store):
    config = {"image": "builtin:linux", "memory": "256M"}
    prepared = new_manager({"linux": {**config, "after_clone": ["echo c > /proc/sysrq-trigger"]}})
    with pytest.raises((GuestPanic, StartError), match=r"(?i)panic"):
        acquired(prepared, "linux")
    manager = new_manager({"linux": config})
    assert acquired(manager, "linux", "b").run("echo fine").stdout == "fine\n"


def test_an_upgraded_qemu_gets_templates_of_its_own(new_manager, store, tmp_path):
    acquired(new_manager({"nano": NANO}), "nano")
    # The same QEMU by another file: only the file's identity is what changes with an upgrade.
    upgraded = tmp_path / "qemu-system-x86_64"
    upgraded.write_text('#!/bin/sh\nexec qemu-system-x86_64 "$@"\n')
    upgraded.chmod(0o755)
    manager = new_manager({"nano": {**NANO, "binary": str(upgraded)}})
    assert acquired(manager, "nano").started_by == "clone"
    assert len(manager.stats()["templates"]) == 1
    assert len(store.all()) == 2


def test_a_killed_builder_leaves_nothing_and_the_next_one_builds(new_manager, store, own_cache, tmp_path):
    script = textwrap.dedent(
        """
        import os, signal, sys, threading, time
        sys.path.insert(0, sys.argv[1])
        from pathlib import Path
        from pytest_maqet.config import load_config
        from pytest_maqet.management.manager import Manager
        from pytest_maqet.settings import Settings
        from conftest import Quiet
        from manager_rig import acquired

        def watch():
            while not list(Path(sys.argv[3]).glob("*/memory.ram")):
                time.sleep(0.005)
            os.kill(os.getpid(), signal.SIGKILL)

        threading.Thread(target=watch, daemon=True).start()
        manager = Manager(load_config([Path(sys.argv[2])]), Settings(), listener=Quiet())
        acquired(manager, "nano")
        """
    )
    yaml = tmp_path / "maqet.yaml"
    manager = new_manager({"nano": NANO})
    arguments = [sys.executable, "-c", script, str(Path(__file__).parent), str(yaml), str(store.folder)]
    assert subprocess.run(arguments, check=False, timeout=60).returncode == -signal.SIGKILL
    assert store.all() == [], "half a template looks complete"
    assert acquired(manager, "nano").started_by == "clone"
    assert len(store.all()) == 1
    left = [path for path in store.folder.glob("*-*") if not path.is_symlink()]
    assert len(left) == 1, "what the killed builder left is still there"


def test_what_a_killed_run_left_half_made_goes_although_nothing_is_made(new_manager, store):
    acquired(new_manager({"nano": NANO}), "nano")
    half = store.folder / "0123456789abcdef0123456789abcdef-00000000"
    half.mkdir(mode=0o700)
    (half / USE).touch(0o600)
    (half / RAM).write_bytes(b"half")
    manager = new_manager({"nano": NANO})
    assert acquired(manager, "nano").started_by == "clone"
    assert manager.stats()["templates"] == []
    assert not half.exists()


def test_templates_go_when_they_take_more_than_they_may(new_manager, store):
    first = new_manager({"nano": NANO, "big": {**NANO, "memory": "24M"}}, templates_size=1)
    acquired(first, "nano", "a")
    first.close()
    second = new_manager({"nano": NANO, "big": {**NANO, "memory": "24M"}}, templates_size=1)
    acquired(second, "big", "a")
    assert len(store.all()) == 1, "the one in use stays, the other goes"
    assert "made room" in notes(second)


def test_many_clones_leave_their_template_as_it_was(new_manager, store):
    manager = new_manager({"nano": NANO})
    acquired(manager, "nano", "first")
    template = store.all()[0].path
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in template.iterdir()}
    for number in range(20):
        vm = acquired(manager, "nano", str(number))
        vm.console.send("hello\n")
        manager.stop(vm)
    after = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in template.iterdir()}
    del before["use"], after["use"]
    assert after == before
    assert TemplateStore(template.parent).all()
