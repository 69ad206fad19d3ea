"""Files of the host into a guest, over whatever channel commands take."""

from __future__ import annotations

import io
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_maqet.errors import ConfigError

#: $1 the target, $2 the source's name, $3 its mode. As cp has it: a directory, or what ends in a slash,
#: gets the file under its own name.
_TAKE_FILE = r"""
target=$1
case $target in */) mkdir -p "$target";; esac
[ -d "$target" ] && target=${target%/}/$2
case $target in */*) mkdir -p "${target%/*}/";; esac
cat >"$target" && chmod "$3" "$target"
"""
_TAKE_TREE = 'mkdir -p "$1" && tar -x -f - -C "$1"'

Run = Callable[..., Any]


def put(run: Run, source: Path, target: str) -> None:
    """Copy a file, or what is in a directory, into the guest; modes are kept.

    `run` is a VM's. A file is copied as `cp` would; a directory's content is put into the directory `target`,
    which is made. Raises ConfigError when there is no such file, CommandError when the guest cannot take it.
    """
    try:
        if source.is_dir():
            run(["/bin/sh", "-c", _TAKE_TREE, "sh", target], input=_archive(source))
            return
        mode = f"{stat.S_IMODE(source.stat().st_mode):o}"
        content = source.read_bytes()
    except OSError as error:
        raise ConfigError(f"{source} cannot be put into the guest: {error.strerror}") from error
    run(["/bin/sh", "-c", _TAKE_FILE, "sh", target, source.name, mode], input=content)


def _archive(folder: Path) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(folder, arcname=".", filter=_owned_by_root)
    return packed.getvalue()


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The host's users mean nothing in the guest."""
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
