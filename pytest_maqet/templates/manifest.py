"""What is written beside a template's files: how to start a clone, and that nothing was changed since."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pytest_maqet.errors import StartError
from pytest_maqet.qemu.inputs import Drive

MANIFEST = "manifest.json"
#: Raised whenever the files or their meaning change.
FORM = 4
#: The files of a template beside its disks and console logs.
RAM, STATE = "memory.ram", "machine.state"


class Damaged(StartError):
    """A template is not what it was when it was made."""


@dataclass(frozen=True)
class FileState:
    """A file as it was when the template was finished; whoever writes to it since, changes that."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> FileState:
        """The file's state now; raises OSError."""
        found = path.stat()
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)


@dataclass(frozen=True)
class FrozenDrive:
    """A drive of the template.

    `disk` is its frozen qcow2 file in the template's folder and `fresh` an empty overlay on that, to be
    copied for each clone. Both are None for a drive nobody writes, whose `file` (an absolute path) clones
    share, or which is an empty CD drive.
    """

    name: str
    format: str
    interface: str
    readonly: bool
    media: str
    node_name: str
    file: str | None = None
    disk: str | None = None
    fresh: str | None = None

    def drive(self, overlay: Path | None) -> Drive:
        """The drive of a clone, whose overlay, where the drive is written, is this file."""
        values: dict[str, Any] = {
            "name": self.name,
            "interface": self.interface,
            "readonly": self.readonly,
            "media": self.media,
            "node_name": self.node_name,
        }
        file = Path(self.file) if self.file is not None else None
        return Drive(file=overlay or file, format=self.format, **values)


@dataclass(frozen=True)
class Manifest:
    """Everything about a template but its files' contents.

    `vm` is the name of the VM it was made for, `made` the time in seconds since the epoch, `boot_seconds`
    what a clone saves, `memory` the guest's bytes, `state_sha256` the digest of the device state, `consoles`
    the names of serial ports with the file of each log, `channel` the one that commands took, `wake` how
    clones are reseeded (`machine.waking`), `exec` whether maqet-exec listened in it, `files` the state of
    every file but the state's and this one. `folder` is where it was made, links followed: its disks have
    that path in them. `sources` is the state of the files elsewhere that it was made of, QEMU's program among
    them, by absolute path: with another one of them another template is made.
    """

    form: int
    key: str
    vm: str
    made: float
    boot_seconds: float
    memory: int
    qemu: str
    machine: str
    state_sha256: str
    drives: tuple[FrozenDrive, ...]
    consoles: Mapping[str, str]
    channel: str | None
    wake: str
    exec: bool
    files: Mapping[str, FileState]
    folder: str
    sources: Mapping[str, FileState] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write it into the template's folder, last of all, and down to the disk."""
        with (folder / MANIFEST).open("x") as file:
            json.dump(asdict(self), file, indent=1)
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read it back. Raises Damaged for what is missing, not readable, or of another form."""
        try:
            found = json.loads((folder / MANIFEST).read_text())
            if found.get("form") != FORM:
                raise Damaged(f"it has form {found.get('form')!r} instead of {FORM}")
            found["drives"] = tuple(FrozenDrive(**drive) for drive in found["drives"])
            found["files"] = {name: FileState(**state) for name, state in found["files"].items()}
            found["sources"] = {path: FileState(**state) for path, state in found.get("sources", {}).items()}
            return cls(**{field.name: found[field.name] for field in fields(cls)})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Damaged(f"its manifest cannot be read: {error!r}") from error

    def check(self, folder: Path) -> None:
        """Raise Damaged, naming the file, unless every file is as it was when the template was made.

        The state's content is compared when it is loaded; the others are too big for that, and their states
        tell of every write.
        """
        if os.path.realpath(folder) != self.folder:
            raise Damaged(f"it was moved or copied from {self.folder}, where its disks refer to")
        for name, state in self.files.items():
            try:
                found = FileState.of(folder / name)
            except OSError as error:
                raise Damaged(f"its file {name} cannot be used: {error.strerror}") from error
            if found != state:
                raise Damaged(f"its file {name} was changed since it was made")

    def outdated(self) -> str | None:
        """What of its sources is not there any more as it was, in words, or None: nobody asks for it then."""
        for name, state in self.sources.items():
            try:
                found = FileState.of(Path(name))
            except (FileNotFoundError, NotADirectoryError):
                return f"{name}, which it was made of, is gone"
            except OSError:
                continue  # it cannot be looked at now; that may pass
            if found != state:
                return f"{name}, which it was made of, has changed since"
        return None
