"""Configuration files that lie where a user expects them to be read, and are not: somebody has to say so.

Found by name only, in the few directories that a run has to do with: one without VMs pays some `lstat` calls.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_maqet.masking import masked
from pytest_maqet.options import DISCOVERED
from pytest_maqet.settings import Settings
from pytest_maqet.visible_text import visible


@dataclass(frozen=True)
class UnreadFiles:
    """Files named as a configuration that this run does not read."""

    config: pytest.Config
    settings: Settings
    paths: list[Path]

    def __bool__(self) -> bool:
        return bool(self.paths)

    @property
    def names(self) -> str:
        """The files, as they may be typed where pytest was called: `sub/maqet.yaml is`."""
        names = " and ".join(self._short(path) for path in self.paths)
        return visible(masked(f"{names} {'is' if len(self.paths) == 1 else 'are'}"))

    @property
    def why(self) -> str:
        """One clause: what is not read, and what is instead."""
        if "config" in self.settings.sources:
            files = ", ".join(self._short(path) for path in self.settings.config)
            instead = f"the {self.settings.source('config')} says to read {files}"
        else:
            what = " or ".join(DISCOVERED)
            instead = (
                f"unless told otherwise, pytest-maqet reads {what} in rootdir only: {self.config.rootpath}"
            )
        return f"{self.names} not read ({visible(masked(instead))})"

    @property
    def cure(self) -> str:
        """What to do so that they are read."""
        options = " ".join(f"--maqet-config {self._short(path)}" for path in self.paths)
        if "config" in self.settings.sources:
            return visible(masked(f"add {options}"))
        ini = self.config.inipath or self.config.rootpath / "pytest.ini"
        relative = " ".join(os.path.relpath(path, ini.parent) for path in self.paths)
        return visible(masked(f"run with {options}, or put maqet_config = {relative} into {ini.name}"))

    def _short(self, path: Path) -> str:
        return min(str(path), os.path.relpath(path, self.config.invocation_params.dir), key=len)


def unread_files(config: pytest.Config, settings: Settings, folders: Iterable[Path] = ()) -> UnreadFiles:
    """Look where pytest was called, and in each of `folders` and those above it up to rootdir."""
    read = {path.resolve() for path in settings.config}
    places = {config.invocation_params.dir: None}
    for folder in folders:
        places |= dict.fromkeys(_up_to(config.rootpath, folder))
    there = (path for place in places for name in DISCOVERED if os.path.lexists(path := place / name))
    return UnreadFiles(config, settings, [path for path in there if path.resolve() not in read])


def folders_of_arguments(config: pytest.Config) -> list[Path]:
    """The directories that the command line or `testpaths` name, or whose tests they name."""
    called = config.invocation_params.dir
    places = (Path(os.path.normpath(called / argument.partition("::")[0])) for argument in config.args)
    return [place if place.is_dir() else place.parent for place in places]


def _up_to(root: Path, folder: Path) -> list[Path]:
    """The folder and those above it, not farther than `root`; the folder alone where it is not under it."""
    if not folder.is_relative_to(root):
        return [folder]
    return [folder, *(above for above in folder.parents if above.is_relative_to(root))]
