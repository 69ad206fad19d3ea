"""Where templates are kept: a folder each, which appears whole or not at all.

The folder `KEY-xxxxxxxx` counts only once the symbolic link `KEY` leads to it, and that is made last. Whoever
uses a template, and whoever makes one, holds a shared lock on the `use` file in its folder, which the kernel
frees at his death. What is old or damaged loses its link; a folder without one is removed by whoever gets its
lock alone. So the paths of a template that a running clone was started from stay what they are.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pytest_maqet.errors import LockTimeout, MaqetError, StartError
from pytest_maqet.host_cache import cache_dir
from pytest_maqet.runs.leases import Lease, RunOver
from pytest_maqet.runs.locks import held_lock, remove_lock
from pytest_maqet.runs.private_files import write_private
from pytest_maqet.templates.folders import USE, alone, check_private, flush, size_of
from pytest_maqet.templates.manifest import Damaged, Manifest
from pytest_maqet.templates.template import Frozen

#: The folder of kept templates in the cache.
FOLDER = "templates"
#: Folders of a store beside its templates: why some VMs have none, and the locks of those who make one.
REFUSED, LOCKS = "refused", "locks"
#: For how long the reason is believed, in seconds.
REFUSED_SECONDS = 7 * 24 * 3600.0
#: A folder may be this young before its maker has locked it, in seconds.
JUST_MADE = 60.0


@dataclass(frozen=True)
class Draft:
    """The folder of a template that is being made."""

    path: Path
    use: Lease


@dataclass(frozen=True)
class Kept:
    """A template that lies in the store: how many bytes it takes on the disk, and when it was used last."""

    path: Path
    size: int
    used: float


class TemplateStore:
    """The templates in one folder, private to the user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def kept(cls) -> TemplateStore:
        """The store that outlives runs, in the user's cache directory.

        Raises StartError where that cannot be written, belongs to somebody else, or is open to others: a
        template holds everything the guest had in memory, and who may write it decides what every test runs.
        """
        folder = cache_dir(FOLDER)
        mode = stat.S_IMODE(folder.stat().st_mode)
        if mode & 0o077:
            raise StartError(
                f"the template directory {folder} is open to others (mode {mode:04o} instead of 0700)",
                hint=f"look at who could have written there, then: chmod 700 {folder}",
            )
        return cls(folder)

    # -- finding -------------------------------------------------------------------------------------------

    def find(self, key: str) -> tuple[Frozen, Lease] | None:
        """The template of that key, with the lease that keeps it; None where there is none.

        Raises Damaged when there is one that was changed since it was made; `remove` takes that away.
        StartError when it cannot be locked (a disk that is read-only).
        """
        path = self._current(key)
        if path is None:
            return None
        try:
            lease = Lease.join(path / USE)
        except (RunOver, LockTimeout):
            if path.is_dir():
                raise Damaged(f"the template {path} is not whole") from None
            return None  # it was evicted in this moment
        try:
            check_private(path)
            manifest = Manifest.read(path)
            if manifest.key != key:
                raise Damaged(f"it is that of another key, {manifest.key}")
            manifest.check(path)
        except Damaged as error:
            lease.close()
            raise Damaged(f"the template {path} is not used: {error.message}") from None
        with contextlib.suppress(OSError):
            os.utime(path / USE)
        return Frozen(path, manifest), lease

    def lock(self, key: str, *, timeout: float, vm: str, owner: str) -> AbstractContextManager[None]:
        """The lock of the one who makes the template of that key; raises LockTimeout, which names him."""
        return held_lock(
            self._locks() / f"{key}.lock",
            timeout=timeout,
            what=f"the template of {vm!r} (being made by another process)",
            owner=owner,
        )

    # -- making --------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def draft(self, key: str, room: int) -> Iterator[Draft]:
        """A folder to make the template in, removed at the end unless it was published.

        Raises StartError when the disk has less than `room` bytes free, even without templates that nobody
        uses: a memory file that cannot be filled kills QEMU without a word.
        """
        self.remove_unlinked()
        free = shutil.disk_usage(self.folder).free
        if free < room:
            self.evict(sum(kept.size for kept in self.all()) - (room - free))
            free = shutil.disk_usage(self.folder).free
        if free < room:
            raise StartError(
                f"the disk of {self.folder} has {free >> 20} MiB free, a template may need {room >> 20} MiB",
                hint="make room, or name a directory elsewhere in MAQET_CACHE_DIR",
            )
        path, lease = self._new_folder(key)
        try:
            yield Draft(path, lease)
        finally:
            if lease.held and self._current(key) != path:
                shutil.rmtree(path, ignore_errors=True)
                self._remove_half_link(path.with_name(f".{path.name}"))
            lease.close()

    def _new_folder(self, key: str) -> tuple[Path, Lease]:
        while True:
            path = self.folder / f"{key}-{secrets.token_hex(4)}"
            try:
                path.mkdir(mode=0o700)
                return path, Lease.take(path / USE)
            except RunOver:
                continue  # another process took it for an abandoned one in the instant before the lock
            except (OSError, MaqetError) as error:
                shutil.rmtree(path, ignore_errors=True)  # made, but not locked: no inode was left for that
                raise StartError(f"the template folder {path} cannot be made: {error}") from error

    def publish(self, draft: Draft, manifest: Manifest) -> Frozen:
        """Finish a draft: write the manifest, let the key lead to it from now on. Raises StartError."""
        link = draft.path.with_name(f".{draft.path.name}")
        try:
            for file in draft.path.iterdir():
                flush(file)  # a crash of the host must not leave holes that look complete
            manifest.write(draft.path)
            for file in draft.path.iterdir():
                file.chmod(stat.S_IMODE(file.stat().st_mode) & 0o700)  # whatever the umask
            link.symlink_to(draft.path.name)
            link.replace(self.folder / manifest.key)
            flush(self.folder)
        except OSError as error:
            raise StartError(f"the template {draft.path} cannot be finished: {error.strerror}") from error
        self.remove_unlinked()
        return Frozen(draft.path, manifest)

    def _current(self, key: str) -> Path | None:
        """The folder that a key leads to."""
        try:
            name = (self.folder / key).readlink().name
        except OSError:
            return None
        return self.folder / name

    # -- what cannot be frozen -----------------------------------------------------------------------------

    def refuse(self, key: str, reason: str) -> None:
        """Remember that QEMU cannot freeze this machine, and why, so that nobody tries again."""
        with contextlib.suppress(OSError, MaqetError):
            folder = self.folder / REFUSED
            folder.mkdir(mode=0o700, exist_ok=True)
            draft = folder / f".{key}-{secrets.token_hex(4)}"
            write_private(draft, json.dumps({"reason": reason}))
            draft.rename(folder / f"{key}.json")

    def refusal(self, key: str) -> str | None:
        """Why the machine of that key cannot be frozen, or None; after a week it is tried again."""
        file = self.folder / REFUSED / f"{key}.json"
        try:
            if time.time() - file.stat().st_mtime > REFUSED_SECONDS:
                return None
            return str(json.loads(file.read_text())["reason"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    # -- removing ------------------------------------------------------------------------------------------

    def remove(self, key: str, folder: Path | None = None) -> None:
        """Take a template out of use; its files go when the last of its clones has ended.

        With `folder` only if the key leads there: another process may have made a new one already.
        """
        with contextlib.suppress(OSError):
            if folder is None or self._current(key) == folder:
                (self.folder / key).unlink()
        self.remove_unlinked()

    def all(self) -> list[Kept]:
        """Every finished template, the one that was not used for longest first."""
        found = []
        for path in self.linked():
            with contextlib.suppress(OSError):
                found.append(Kept(path, size_of(path), (path / USE).stat().st_mtime))
        return sorted(found, key=lambda kept: kept.used)

    def evict(self, limit: int) -> list[Kept]:
        """Remove what was not used for longest until the rest takes at most `limit` bytes; returns that.

        One that is in use stays, however old.
        """
        everything = self.all()
        total = sum(kept.size for kept in everything)
        removed = []
        for kept in everything:
            if total <= limit:
                break
            if self.discard(kept.path):
                total -= kept.size
                removed.append(kept)
        return removed

    def discard(self, path: Path) -> bool:
        """Remove a template with its key, unless somebody uses it; whether that was done."""
        with alone(path) as unused:
            if unused:
                key = path.name.rpartition("-")[0]
                with contextlib.suppress(OSError):
                    if self._current(key) == path:
                        (self.folder / key).unlink()
                shutil.rmtree(path, ignore_errors=True)
            return unused

    def remove_unlinked(self) -> None:
        """Remove folders that no key leads to and nobody uses (abandoned, replaced); dead locks."""
        linked = set(self.linked())
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                if path.is_symlink() and path.name.startswith("."):
                    self._remove_half_link(path)
                elif path.is_dir() and not path.is_symlink() and path not in linked and "-" in path.name:
                    self._remove_unlinked(path)
        for record in (self.folder / LOCKS).glob("*.holder"):
            remove_lock(record.with_suffix(""))  # of a maker that was killed: a living one has the lock

    def _remove_unlinked(self, path: Path) -> None:
        with alone(path) as unused:
            # Looked at again with the lock: it may have been published since.
            if unused and path not in self.linked():
                shutil.rmtree(path, ignore_errors=True)
                return
        with contextlib.suppress(OSError):
            if not (path / USE).exists() and time.time() - path.stat().st_mtime > JUST_MADE:
                shutil.rmtree(path, ignore_errors=True)

    def _remove_half_link(self, link: Path) -> None:
        """Remove a link whose maker was killed before it became the key's; a living one has the lock."""
        folder = self.folder / link.name.removeprefix(".")
        with alone(folder) as unused:
            if unused or not (folder / USE).exists():
                link.unlink(missing_ok=True)

    def linked(self) -> list[Path]:
        """The folders that keys lead to."""
        found = []
        with contextlib.suppress(OSError):
            for link in self.folder.iterdir():
                if link.is_symlink() and not link.name.startswith("."):
                    found.append(self.folder / link.readlink().name)
        return found

    def _locks(self) -> Path:
        locks = self.folder / LOCKS
        try:
            locks.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StartError(f"{locks} cannot be made: {error.strerror}") from error
        return locks
