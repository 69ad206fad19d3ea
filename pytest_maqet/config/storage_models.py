"""Disks, CD drives and shared folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from pytest_maqet.config.model import Model
from pytest_maqet.config.value_types import FilePath, Name, Size, Switch, Text, fault

#: How big a disk is that says neither `size` nor what it is a copy of: 10 GiB, as in maqet.
DEFAULT_DISK_SIZE = 10 << 30

Interface = Literal["virtio", "ide", "sata", "scsi", "nvme", "none"]


class Storage(Model):
    """One device of `storage:`.

    A disk with `file` is a throw-away copy of that file, which is never written. Where there is no such file,
    or none is named, a disk begins as a copy of `backing_file`, or empty and `size` bytes big (10 GiB where
    nothing is said). `path` is another word for `file`, but for type virtfs, where it is the folder.
    """

    name: Name
    type: Literal["qcow2", "raw", "virtfs", "cdrom"] = "qcow2"
    file: FilePath | None = None
    path: FilePath | None = None
    size: Size | None = None
    interface: Interface = Field(
        default_factory=lambda said: "ide" if said.get("type") == "cdrom" else "virtio"
    )
    backing_file: FilePath | None = None
    backing_format: Literal["qcow2", "raw"] | None = None
    readonly: Switch = False
    persist: Switch = False
    mount_tag: Text | None = None
    security_model: Literal["passthrough", "mapped-xattr", "mapped-file", "none"] | None = None

    @model_validator(mode="after")
    def _check(self) -> Storage:
        if self.type == "virtfs":
            return self._checked(self.path is not None, "a folder to share needs `path`", _NOT_OF_VIRTFS)
        self._checked(True, "", _ONLY_OF_VIRTFS)
        if self.file is not None and self.path is not None:
            raise fault("found both `file` and `path`", "they mean the same here; keep `file`")
        if self.path is not None:
            object.__setattr__(self, "file", self.path)  # frozen, and not handed out yet
            object.__setattr__(self, "path", None)
        if self.type == "cdrom":
            return self._checked(True, "", _NOT_OF_CDROM)
        if self.backing_format is not None and self.backing_file is None:
            raise fault("found `backing_format` without `backing_file`", at=("backing_format",))
        if self.backing_file is not None and self.type == "raw":
            raise fault("a raw disk cannot have a backing file", "use `type: qcow2`", at=("backing_file",))
        return self

    def _checked(self, holds: bool, otherwise: str, unwanted: tuple[str, ...]) -> Storage:  # noqa: FBT001
        if not holds:
            raise fault(otherwise)
        for key in unwanted:
            if key in self.model_fields_set and getattr(self, key) not in (None, False):
                raise fault(f"`{key}` means nothing for type {self.type}", at=(key,))
        return self

    @property
    def base(self) -> Path | None:
        """The file a disk or CD begins as a copy of: `file` where it exists, else `backing_file`.

        None is an empty disk. A `file` that is missing is only passed over when `size` or `backing_file` says
        how to make a new disk.
        """
        new = self.size is not None or self.backing_file is not None
        if self.file is not None and (not new or os.path.lexists(self.file)):
            return self.file
        return self.backing_file


_ONLY_OF_VIRTFS = ("mount_tag", "security_model")
_NOT_OF_VIRTFS = ("file", "size", "interface", "backing_file", "backing_format", "persist")
_NOT_OF_CDROM = ("size", "backing_file", "backing_format", "persist")
