"""Calls of qemu-img, each with its error in words."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pytest_maqet.errors import StartError

#: No call of qemu-img that is made here takes long; one that does is stuck on a dead file system. Seconds.
PATIENCE = 60.0


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
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StartError(f"{what}: qemu-img did not end within {PATIENCE:g} s") from None
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}"
        raise StartError(f"{what} failed: {said}", hint=_hint(said))
    return done.stdout


def _hint(said: str) -> str | None:
    if "No space left" in said:
        return "the disk is full: make room, or name another directory in TMPDIR"
    if "Permission denied" in said:
        return "the user that runs the tests needs read access to it"
    if "Is another process using the image" in said or "lock" in said:
        return "another program has the image open for writing; base images must be at rest"
    return None


def as_argument(path: Path) -> str:
    """A path as qemu-img takes it: made absolute, so that none looks like an option or a protocol."""
    return f"file:{path.absolute()}"
