"""Which downloaded images nobody needs any more, and why."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pytest_maqet.errors import LockTimeout
from pytest_maqet.runs.leftover import IN_USE_NOW, Found, Leftover, ago
from pytest_maqet.runs.locks import held_lock, remove_lock
from pytest_maqet.runs.trees import size_of
from pytest_maqet.runs.use_marks import forget, is_unused, last_used, unused
from pytest_maqet.storage.download import LOCK, PART
from pytest_maqet.storage.partial import Partial

#: What is kept is named by its checksum; beside it lie files of its download.
_IMAGE = re.compile(r"sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128}")


def unneeded_images(folder: Path, *, unused_for: float) -> Found:
    """What may go from the folder of downloaded images: those nobody has used for `unused_for` seconds, and
    downloads that nobody has gone on with for as long.
    """
    found = Found()
    limit = time.time() - unused_for
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            name = path.name.partition(".")[0]
            if not _IMAGE.fullmatch(name) or path.is_symlink() or not path.is_file():
                found.foreign.append(f"{path}: it is no image of ours")
            elif path.name == name:
                _image(path, limit, found)
            elif path.suffix == PART and last_used(path) <= limit:
                reason = f"an unfinished download, last tried {ago(last_used(path))}"
                found.leftovers.append(
                    Leftover("image", path, size_of(path), reason, partial(_remove_partial, path))
                )
    return found


def _image(path: Path, limit: float, found: Found) -> None:
    when = last_used(path)
    if when > limit:
        return
    if not is_unused(path):
        found.used.append(f"image {path}")
        return
    reason = f"last used {ago(when)}"
    found.leftovers.append(Leftover("image", path, size_of(path), reason, partial(_remove, path)))


def _remove(path: Path) -> str | None:
    with unused(path) as free:
        if not free:
            return IN_USE_NOW
        said = _under_download_lock(path, lambda: path.unlink(missing_ok=True))
        if said is None:
            forget(path)
    return said


def _remove_partial(path: Path) -> str | None:
    return _under_download_lock(path.with_suffix(""), Partial(path).remove)


def _under_download_lock(image: Path, remove: Callable[[], None]) -> str | None:
    lock = image.with_suffix(LOCK)
    try:
        with held_lock(lock, timeout=0, what="the image", owner="pytest-maqet clean"):
            remove()
    except LockTimeout:
        return IN_USE_NOW
    except OSError as error:
        return os.strerror(error.errno or 0)
    remove_lock(lock)
    return None
