"""Kept answers of QEMU programs that nobody needs any more."""

from __future__ import annotations

import contextlib
import re
import time
from functools import partial
from pathlib import Path

from pytest_maqet.runs.leftover import Found, Leftover
from pytest_maqet.runs.locks import remove_lock
from pytest_maqet.runs.trees import size_of

#: The folders of answers in the cache.
KINDS = ("accelerator-verdicts", "qemu-boards", "qemu-capabilities")
#: An answer, its lock, and what was being written when a process was killed (see `kept_answers`).
_ANSWER = re.compile(r"[0-9a-f]{16,32}\w*\.(json|lock|new)")


def unneeded_answers(folder: Path, *, older_than: float) -> Found:
    """What may go from a folder of answers: those kept for more than `older_than` seconds. QEMU is asked anew
    when one is missed, which takes a second.
    """
    found = Found()
    limit = time.time() - older_than
    old = []
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            if not _ANSWER.fullmatch(path.name) or path.is_symlink() or not path.is_file():
                found.foreign.append(f"{path}: it is no answer of QEMU's")
            elif path.lstat().st_mtime <= limit:
                old.append(path)
    if old:
        size = sum(size_of(path) for path in old)
        reason = f"{len(old)} files with what QEMU programs can do; asked anew when it is missed"
        found.leftovers.append(Leftover("answers", folder, size, reason, partial(_remove, old)))
    return found


def _remove(files: list[Path]) -> str | None:
    for file in files:
        if file.suffix == ".lock":
            remove_lock(file)
            continue
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            return f"{file.name}: {error.strerror}"
    return None
