"""Which templates of a store nobody needs any more, and why."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from functools import partial
from pathlib import Path

from pytest_maqet.errors import LockTimeout
from pytest_maqet.runs.leftover import IN_USE_NOW, Found, Leftover, ago
from pytest_maqet.runs.locks import remove_lock
from pytest_maqet.runs.trees import remove_tree, size_of
from pytest_maqet.templates.folders import USE, alone
from pytest_maqet.templates.manifest import FORM, MANIFEST, Damaged, Manifest
from pytest_maqet.templates.store import JUST_MADE, LOCKS, REFUSED, REFUSED_SECONDS, TemplateStore

#: What a store names a template's folder: its key, and a part that is another one each time.
_FOLDER = re.compile(r"[0-9a-f]{32}-[0-9a-f]{8}")
_KEY = re.compile(r"[0-9a-f]{32}")
#: The store's own files, which stay.
_OWN = (REFUSED, LOCKS)


def unneeded_templates(store: TemplateStore, *, limit: int, everything: bool) -> Found:
    """What may go: folders without a builder, templates that nothing can ask for any more, and those used
    longest ago, until the rest takes at most `limit` bytes; with `everything`, all that nobody uses.
    """
    found = Found()
    linked = set(store.linked())
    rest = []
    for path in _folders(store, found):
        if path not in linked:
            _unlinked(store, path, found)
        elif reason := _useless(path):
            _offer(store, path, reason, found)
        else:
            rest.append(path)
    _oversized(store, rest, found, 0 if everything else limit, everything=everything)
    _small_files(store, found)
    return found


def _folders(store: TemplateStore, found: Found) -> list[Path]:
    """The store's own folders; what else lies there is noted."""
    folders = []
    with contextlib.suppress(OSError):
        for path in sorted(store.folder.iterdir()):
            is_folder = path.is_dir() and not path.is_symlink()
            if _FOLDER.fullmatch(path.name) and is_folder and path.lstat().st_uid == os.geteuid():
                folders.append(path)
            elif not path.is_symlink() and path.name not in _OWN:
                found.foreign.append(f"{path}: it is no template of this user")
    return folders


def _unlinked(store: TemplateStore, path: Path, found: Found) -> None:
    """A draft, or a template that was replaced: in use by its builder or its last clones, or left behind."""
    if _is_free(path):
        reason = "it was replaced or never finished, and nobody has it"
        remove = partial(_remove_unlinked, store, path)
        found.leftovers.append(Leftover("template", path, size_of(path), reason, remove))
    else:
        found.used.append(f"template {path} (being made, or used by clones)")


def _is_free(path: Path) -> bool:
    with alone(path) as unused:
        if unused:
            return True
    try:
        return not os.path.lexists(path / USE) and time.time() - path.stat().st_mtime > JUST_MADE
    except OSError:
        return False


def _remove_unlinked(store: TemplateStore, path: Path) -> str | None:
    store.remove_unlinked()
    if not os.path.lexists(path):
        return None
    if path in store.linked() or not _is_free(path):
        return IN_USE_NOW
    return None if remove_tree(path) else "not all of it can be removed"


def _useless(path: Path) -> str | None:
    """Why no VM can ask for a template any more; None where one may."""
    try:
        manifest = Manifest.read(path)
        manifest.check(path)
    except Damaged as error:
        if _is_of_another_form(path):
            return None  # another version of ours may be installed beside this one
        return f"it is damaged: {error.message}"
    return manifest.outdated()


def _is_of_another_form(path: Path) -> bool:
    try:
        found = json.loads((path / MANIFEST).read_text())
        return isinstance(found, dict) and isinstance(found.get("form"), int) and found["form"] != FORM
    except (OSError, ValueError):
        return False


def _offer(store: TemplateStore, path: Path, reason: str, found: Found) -> bool:
    """Note a finished template as one that may go, unless it is in use; whether it may."""
    with alone(path) as unused:
        pass
    if not unused:
        found.used.append(f"template {path}{_name(path)}")
        return False
    remove = partial(_remove, store, path)
    found.leftovers.append(Leftover("template", path, size_of(path), f"{reason}{_name(path)}", remove))
    return True


def _remove(store: TemplateStore, path: Path) -> str | None:
    if not store.discard(path):
        return IN_USE_NOW if os.path.lexists(path) else None
    return None if remove_tree(path) else "not all of it can be removed"


def _oversized(
    store: TemplateStore, paths: list[Path], found: Found, limit: int, *, everything: bool
) -> None:
    """Offer what was used longest ago, until the rest fits."""
    kept = sorted(paths, key=_used)
    sizes = {path: size_of(path) for path in kept}
    total = sum(sizes.values())
    for path in kept:
        if total <= limit:
            break
        when = ago(_used(path))
        reason = f"last used {when}" if everything else f"the kept ones are over the limit; last used {when}"
        if _offer(store, path, reason, found):
            total -= sizes[path]


def _used(path: Path) -> float:
    with contextlib.suppress(OSError):
        return (path / USE).lstat().st_mtime
    return 0.0


def _name(path: Path) -> str:
    try:
        return f" (of VM {Manifest.read(path).vm!r})"
    except Damaged:
        return ""


def _small_files(store: TemplateStore, found: Found) -> None:
    """Links that lead nowhere, reasons that are not believed any more, locks of keys that are gone."""
    keys = set()
    for link in (path for path in _entries(store.folder) if path.is_symlink()):
        if (store.folder / link.readlink().name).is_dir():
            keys.add(link.name)
        elif _KEY.fullmatch(link.name.removeprefix(".")[:32]):
            reason = "a link to a template that is gone"
            found.leftovers.append(
                Leftover("template", link, 0, reason, partial(_unlink_dangling, store, link))
            )
    refusals = [
        file for file in _entries(store.folder / REFUSED) if time.time() - _age(file) > REFUSED_SECONDS
    ]
    locks = [
        lock
        for lock in _entries(store.folder / LOCKS)
        if lock.suffix == ".lock" and _KEY.fullmatch(lock.stem) and lock.stem not in keys
    ]
    for folder, files, reason, remove in (
        (REFUSED, refusals, "notes why VMs cannot be frozen, which are believed for a week", _unlink_all),
        (LOCKS, locks, "locks of templates that are gone", _remove_locks),
    ):
        if files:
            size = sum(size_of(file) for file in files)
            said = f"{len(files)} {reason}"
            found.leftovers.append(
                Leftover("template", store.folder / folder, size, said, partial(remove, files))
            )


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir()) if not folder.is_symlink() else []
    except OSError:
        return []


def _age(file: Path) -> float:
    with contextlib.suppress(OSError):
        return file.lstat().st_mtime
    return time.time()


def _unlink_dangling(store: TemplateStore, link: Path) -> str | None:
    """Under the lock of those who let the key lead to a new template."""
    try:
        with store.lock(link.name.removeprefix(".")[:32], timeout=0, vm="?", owner="pytest-maqet clean"):
            if link.is_symlink() and not (store.folder / link.readlink().name).is_dir():
                link.unlink()
    except LockTimeout:
        return IN_USE_NOW
    except OSError as error:
        return str(error.strerror)
    return None


def _unlink_all(files: list[Path]) -> str | None:
    try:
        for file in files:
            file.unlink(missing_ok=True)
    except OSError as error:
        return str(error.strerror)
    return None


def _remove_locks(locks: list[Path]) -> str | None:
    """Those that are held stay: somebody makes that template again."""
    for lock in locks:
        remove_lock(lock)
    return None
