"""Calls of qemu-img, each with its error in words."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pytest_maqet.errors import StartError
from pytest_maqet.runs.child_environment import child_environment

#: No call of qemu-img that is made here takes long; one that does is stuck on a dead file system. Seconds.
PATIENCE = 60.0

#: What qemu-img says → what can be done about it. Its words do not depend on the locale.
_HINTS = {
    "No space left": "the disk is full: make room, or name a directory elsewhere in MAQET_RUN_BASE",
    "Permission denied": "the user that runs the tests needs read access to it",
    "Is another process using the image": "a program has the image open for writing; a base image must rest",
    "Could not open backing": "the files that an image was made on must stay where they were",
}


def qemu_img(arguments: Sequence[str], what: str) -> str:
    """Run `qemu-img` with these arguments and return what it printed.

    Raises StartError, which says `what` was tried and what qemu-img said of it.
    """
    program = shutil.which("qemu-img")
    if program is None:
        raise StartError(
            f"{what} needs qemu-img, which is not installed",
            hint="install it: `apt install qemu-utils` (Debian, Ubuntu) or `dnf install qemu-img` (Fedora)",
        )
    try:
        done = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=child_environment(LC_ALL="C"),
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StartError(f"{what}: qemu-img did not end within {PATIENCE:g} s") from None
    except OSError as error:
        raise StartError(f"{what} failed: {program} does not run: {error.strerror}") from error
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"qemu-img ended with status {done.returncode}"
        raise StartError(f"{what} failed: {said}", hint=_hint(said))
    return done.stdout


def _hint(said: str) -> str | None:
    return next((hint for words, hint in _HINTS.items() if words in said), None)


def as_argument(path: Path) -> str:
    """A path as qemu-img takes it: absolute and marked as a file, so that none is an option or a protocol."""
    return f"file:{path.absolute()}"
