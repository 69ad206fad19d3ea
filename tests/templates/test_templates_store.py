"""Where templates are kept: whole or not at all, verified, locked while used, bounded in size."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_maqet.errors import LockTimeout, StartError
from pytest_maqet.templates.folders import USE
from pytest_maqet.templates.manifest import FORM, RAM, STATE, Damaged, FileState, Manifest
from pytest_maqet.templates.store import Draft, TemplateStore
from pytest_maqet.templates.template import Frozen

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path) -> TemplateStore:
    folder = tmp_path / "templates"
    folder.mkdir(mode=0o700)
    return TemplateStore(folder)


def manifest_of(draft: Draft, key: str = KEY) -> Manifest:
    return Manifest(
        form=FORM,
        key=key,
        vm="web",
        made=1.0,
        boot_seconds=2.0,
        memory=1 << 20,
        qemu="7.2.22",
        machine="q35",
        state_sha256="0" * 64,
        drives=(),
        consoles={"main": "serial-main.log"},
        channel="agent",
        wake="port",
        exec=True,
        files={RAM: FileState.of(draft.path / RAM)},
        folder=os.path.realpath(draft.path),
    )


def made(store: TemplateStore, key: str = KEY, size: int = 4096) -> Frozen:
    with store.draft(key, size) as draft:
        (draft.path / RAM).write_bytes(b"m" * size)
        (draft.path / STATE).write_bytes(b"state")
        return store.publish(draft, manifest_of(draft, key))


def folders(store: TemplateStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir() if path.is_dir() and not path.is_symlink())


def test_what_was_published_is_found_as_it_was(store):
    frozen = made(store)
    found = store.find(KEY)
    assert found is not None
    assert found[0] == frozen
    assert found[0].manifest.files[RAM] == FileState.of(frozen.ram)
    found[1].close()


def test_there_is_nothing_before(store):
    assert store.find(KEY) is None


def test_a_draft_that_is_given_up_leaves_nothing(store):
    with pytest.raises(RuntimeError), store.draft(KEY, 1):
        raise RuntimeError
    assert store.find(KEY) is None
    assert folders(store) == []


def test_a_draft_is_no_template_before_it_is_published(store):
    with store.draft(KEY, 1) as draft:
        (draft.path / RAM).write_bytes(b"m")
        manifest_of(draft).write(draft.path)
        assert store.find(KEY) is None, "a manifest alone makes a template"
        assert store.all() == []


def test_a_killed_maker_leaves_nothing_that_looks_complete(store):
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        from pathlib import Path
        from pytest_maqet.templates.store import TemplateStore
        store = TemplateStore(Path({str(store.folder)!r}))
        with store.draft({KEY!r}, 1) as draft:
            (draft.path / "memory.ram").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert len(folders(store)) == 1, "the maker was killed too early for this test"
    assert store.find(KEY) is None
    made(store)
    assert len(folders(store)) == 1, "what the killed one left is still there"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: (path / RAM).write_bytes(b"other"), "memory.ram was changed"),
        (lambda path: os.utime(path / RAM, ns=(1, 1)), "memory.ram was changed"),
        (lambda path: (path / RAM).unlink(), "memory.ram cannot be used"),
        (lambda path: (path / "manifest.json").write_text("{}"), "form None"),
        (lambda path: (path / "manifest.json").write_text("[1"), "cannot be read"),
        (lambda path: (path / "manifest.json").unlink(), "cannot be read"),
        (lambda path: path.chmod(0o755), "open to others"),
        (lambda path: (path / USE).unlink(), "not whole"),
    ],
    ids=["content", "time", "gone", "form", "json", "no-manifest", "mode", "no-lock"],
)
def test_damage_is_seen_and_named(store, damage, words):
    frozen = made(store)
    damage(frozen.path)
    with pytest.raises(Damaged, match=words):
        store.find(KEY)


def test_a_manifest_of_another_key_is_not_taken(store):
    frozen = made(store)
    (store.folder / ("f" * 32)).symlink_to(frozen.path.name)
    with pytest.raises(Damaged, match="another key"):
        store.find("f" * 32)


def test_a_template_in_use_stays_when_it_is_removed(store):
    frozen = made(store)
    found = store.find(KEY)
    assert found is not None
    store.remove(KEY)
    assert store.find(KEY) is None, "it is out of use at once"
    assert frozen.ram.exists(), "its clone may be started again from its disks"
    found[1].close()
    store.remove_unlinked()
    assert folders(store) == []


def test_a_new_one_takes_the_place_of_the_old(store):
    old = made(store)
    held = store.find(KEY)
    assert held is not None
    new = made(store)
    found = store.find(KEY)
    assert found is not None
    assert found[0].path == new.path != old.path
    assert old.ram.exists(), "somebody uses the old one"
    for lease in (held[1], found[1]):
        lease.close()
    store.remove_unlinked()
    assert folders(store) == [new.path.name]


def test_the_one_unused_for_longest_goes_first(store):
    keys = [f"{number:032x}" for number in range(4)]
    for number, key in enumerate(keys):
        frozen = made(store, key, size=100_000)
        os.utime(frozen.path / USE, (1000 + number, 1000 + number))
    oldest = store.find(keys[0])  # using it makes it the youngest
    assert oldest is not None
    oldest[1].close()
    total = sum(kept.size for kept in store.all())
    removed = store.evict(total - 1)
    assert [kept.path.name.split("-")[0] for kept in removed] == [keys[1]]
    assert store.find(keys[1]) is None
    assert len(store.all()) == 3


def test_eviction_never_touches_one_in_use(store):
    frozen = made(store)
    found = store.find(KEY)
    assert found is not None
    assert store.evict(0) == []
    assert frozen.ram.exists()
    found[1].close()
    assert len(store.evict(0)) == 1
    assert store.all() == []


def test_another_process_in_use_is_respected(store):
    frozen = made(store)
    script = (
        "import sys; from pathlib import Path; from pytest_maqet.runs.leases import Lease\n"
        f"lease = Lease.join(Path({str(frozen.path / USE)!r})); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "held\n"
        assert store.evict(0) == []
        user.kill()
        user.wait()
    assert len(store.evict(0)) == 1, "the kernel frees what a killed user held"


def test_room_is_made_before_it_is_missed(store):
    made(store)
    free = os.statvfs(store.folder)
    much = free.f_bavail * free.f_frsize * 2
    with pytest.raises(StartError, match="MiB free"), store.draft("f" * 32, much):
        pass
    assert store.all() == [], "unused templates go before one is refused"


def test_a_link_whose_maker_was_killed_goes_with_the_next_template(store):
    """Killed between the making of the link and its renaming to the key."""
    abandoned = store.folder / f"{KEY}-00000000"
    abandoned.mkdir(mode=0o700)
    (abandoned / USE).touch(0o600)
    half = store.folder / f".{abandoned.name}"
    half.symlink_to(abandoned.name)
    with store.draft(KEY, 4096) as draft:
        living = store.folder / f".{draft.path.name}"
        living.symlink_to(draft.path.name)
        store.remove_unlinked()
        assert not os.path.lexists(half), "nobody is going to rename it"
        assert not abandoned.exists()
        assert os.path.lexists(living), "its maker is just about to rename it"


def test_what_a_killed_maker_says_of_its_lock_goes_and_a_living_ones_stays(store):
    with store.lock("b" * 32, timeout=1, vm="web", owner="gw1"):
        dead = store.folder / "locks" / f"{KEY}.lock.holder"
        dead.write_text("{}")
        store.remove_unlinked()
        left = sorted(path.name for path in (store.folder / "locks").glob("*.holder"))
    assert left == ["b" * 32 + ".lock.holder"]


def test_nobody_takes_a_draft_that_is_just_being_made_for_an_abandoned_one(store):
    """Between a folder's making and its locking another process may look for abandoned ones."""
    over = threading.Event()

    def clear_up():
        while not over.is_set():
            store.remove_unlinked()

    others = [threading.Thread(target=clear_up) for _ in range(3)]
    for other in others:
        other.start()
    try:
        for _ in range(300):
            with store.draft(KEY, 4096) as draft:
                assert draft.path.is_dir()
    finally:
        over.set()
        for other in others:
            other.join()


def test_what_cannot_be_frozen_is_remembered(store):
    assert store.refusal(KEY) is None
    store.refuse(KEY, "nvme has no migration")
    assert store.refusal(KEY) == "nvme has no migration"
    (store.folder / "refused" / f"{KEY}.json").write_text("nonsense")
    assert store.refusal(KEY) is None


def test_two_makers_wait_for_each_other_and_the_error_names_the_holder(store):
    with (
        store.lock(KEY, timeout=1, vm="web", owner="gw0, test_a.py::test_b"),
        pytest.raises(LockTimeout, match=r"template of 'web'.*gw0, test_a\.py::test_b"),
        store.lock(KEY, timeout=0.1, vm="web", owner="gw1"),
    ):
        pass


def test_files_are_private_whatever_the_umask(store):
    old = os.umask(0)
    try:
        frozen = made(store)
    finally:
        os.umask(old)
    open_ones = [path.name for path in [frozen.path, *frozen.path.iterdir()] if path.stat().st_mode & 0o077]
    assert open_ones == []


def test_the_kept_store_must_be_private(tmp_path, monkeypatch):
    monkeypatch.setenv("MAQET_CACHE_DIR", str(tmp_path / "cache"))
    folder = TemplateStore.kept().folder
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o750)
    with pytest.raises(StartError, match=r"open to others \(mode 0750.*\)[\s\S]*chmod 700"):
        TemplateStore.kept()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
def test_the_kept_store_must_be_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("MAQET_CACHE_DIR", str(tmp_path / "cache"))
    os.chown(TemplateStore.kept().folder, 12345, -1)
    with pytest.raises(StartError, match="belongs to user id 12345"):
        TemplateStore.kept()


def test_a_manifest_is_read_as_it_was_written(store):
    with store.draft(KEY, 1) as draft:
        (draft.path / RAM).write_bytes(b"m")
        manifest = replace(manifest_of(draft), channel=None)
        manifest.write(draft.path)
        assert Manifest.read(draft.path) == manifest
