"""Which checkpoints a VM has: a small file in its directory, for all processes that use the VM."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pytest_maqet.errors import MaqetError
from pytest_maqet.runs.private_files import write_private


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint.

    `tag` names the snapshots and the block node that has the memory, `disks` are the block nodes saved along
    with it, `running` says whether the guest ran.
    """

    tag: str
    disks: tuple[str, ...]
    running: bool


class CheckpointBook:
    """The checkpoints of one QEMU process by their names; those of another process count as lost.

    Names are whatever the test calls them; QEMU and the file system see tags only.
    """

    def __init__(self, path: Path, pid: int) -> None:
        self._path = path
        self._pid = pid
        self._pages = _read(path)

    @property
    def taken(self) -> Mapping[str, Checkpoint]:
        """Those that can be restored, the oldest first."""
        return self._pages.get(self._pid, {})

    @property
    def lost(self) -> Mapping[str, Checkpoint]:
        """Those of QEMU processes before this one."""
        return {
            name: one for pid, page in self._pages.items() if pid != self._pid for name, one in page.items()
        }

    def find(self, name: str, vm_name: str) -> Checkpoint:
        """The checkpoint of that name. Raises MaqetError that names those there are."""
        if name in self.taken:
            return self.taken[name]
        known = ", ".join(map(repr, self.taken)) or "none"
        near = get_close_matches(name, list(self.taken), 1)
        if name in self.lost:
            raise MaqetError(
                f"{vm_name}: checkpoint {name!r} went with the QEMU process it was taken in; "
                f"this one's checkpoints: {known}",
                hint="vm.start() begins a new QEMU process: take the checkpoint again after it",
            )
        raise MaqetError(
            f"{vm_name}: there is no checkpoint {name!r}; there are: {known}",
            hint=f"did you mean {near[0]!r}?" if near else f"vm.checkpoint({name!r}) takes one",
        )

    def enter(self, name: str, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint, as the youngest. Raises OSError when the disk is full."""
        page = {known: one for known, one in self.taken.items() if known != name}
        self._write({**self._pages, self._pid: {**page, name: checkpoint}})

    def strike(self, name: str) -> None:
        """Forget a checkpoint."""
        page = {known: one for known, one in self.taken.items() if known != name}
        self._write({**self._pages, self._pid: page})

    def strike_lost(self) -> None:
        """Forget those of earlier QEMU processes."""
        self._write({self._pid: dict(self.taken)})

    def _write(self, pages: dict[int, dict[str, Checkpoint]]) -> None:
        self._pages = pages
        text = json.dumps(
            {pid: {name: asdict(one) for name, one in page.items()} for pid, page in pages.items()}
        )
        new = self._path.with_suffix(".new")
        write_private(new, text)
        new.replace(self._path)


def _read(path: Path) -> dict[int, dict[str, Checkpoint]]:
    try:
        found: dict[str, dict[str, Any]] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return {
        int(pid): {
            name: Checkpoint(one["tag"], tuple(one["disks"]), one["running"]) for name, one in page.items()
        }
        for pid, page in found.items()
    }
