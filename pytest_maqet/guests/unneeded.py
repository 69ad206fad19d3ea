"""Which builds of builtin:linux nobody needs any more, and why."""

from __future__ import annotations

import contextlib
import re
import time
from functools import partial
from pathlib import Path

from pytest_maqet.errors import LockTimeout
from pytest_maqet.guests.linux_build import BUILD_LOCK, CURRENT, LINUX
from pytest_maqet.runs.leftover import IN_USE_NOW, Found, Leftover, ago
from pytest_maqet.runs.locks import held_lock
from pytest_maqet.runs.trees import remove_tree, size_of
from pytest_maqet.runs.use_marks import forget, is_unused, last_used, unused

_HOME = re.compile(re.escape(LINUX) + r"[0-9a-f]{12}")


def unneeded_guests(folder: Path, *, unused_for: float) -> Found:
    """What may go from the folder of guests: those nobody has used for `unused_for` seconds, and in the
    others what a later build has replaced or an interrupted one has left.
    """
    found = Found()
    limit = time.time() - unused_for
    with contextlib.suppress(OSError):
        for home in sorted(folder.iterdir()):
            if not _HOME.fullmatch(home.name.partition(".")[0]) or home.is_symlink():
                found.foreign.append(f"{home}: it is no guest of ours")
            elif home.is_dir():
                _look_at(home, limit, found)
    return found


def _look_at(home: Path, limit: float, found: Found) -> None:
    if not is_unused(home):
        found.used.append(f"guest {home}")
        return
    when = last_used(home)
    if when <= limit:
        reason = f"builtin:linux of another version or host, last used {ago(when)}"
        found.leftovers.append(Leftover("guest", home, size_of(home), reason, partial(_remove, home, home)))
        return
    current = (home / CURRENT).resolve()
    for build in home.iterdir():
        if build.is_dir() and not build.is_symlink() and build != current:
            reason = "a build of builtin:linux that was replaced or never finished"
            found.leftovers.append(
                Leftover("guest", build, size_of(build), reason, partial(_remove, home, build))
            )


def _remove(home: Path, what: Path) -> str | None:
    """All of a home, or one build in it, unless somebody uses or builds one there."""
    with unused(home) as free:
        if not free:
            return IN_USE_NOW
        try:
            with held_lock(home / BUILD_LOCK, timeout=0, what="the guest", owner="pytest-maqet clean"):
                if what == (home / CURRENT).resolve():
                    return IN_USE_NOW  # it was built once more since we looked
                gone = remove_tree(what)
        except LockTimeout:
            return IN_USE_NOW
        if gone and what == home:
            forget(home)
    return None if gone else "not all of it can be removed"
