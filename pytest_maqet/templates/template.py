"""`Template`: what a test holds of a frozen VM, and `Frozen`: its files."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_maqet.config import VmConfig
from pytest_maqet.runs.leases import Lease
from pytest_maqet.templates.manifest import RAM, STATE, Manifest


@dataclass(frozen=True)
class Frozen:
    """A finished template on disk: its folder and what the manifest says."""

    path: Path
    manifest: Manifest

    @property
    def ram(self) -> Path:
        """The guest's memory."""
        return self.path / RAM

    @property
    def state(self) -> Path:
        """The state of its devices."""
        return self.path / STATE


@dataclass(frozen=True, eq=False)
class Template:
    """A frozen, booted and prepared VM, from which any number of clones can be started.

    It may stand wherever a VM's name may: `vm_factory(template)`, `maqet.start(template)`,
    `@pytest.mark.maqet(template)`, an indirect parameter of `vm`. `name` is the VM's it was made of, `key`
    changes with everything that went into it. A clone's scope, timeouts and the like may be changed, what the
    frozen machine is made of may not.
    """

    name: str
    key: str
    config: VmConfig
    frozen: Frozen
    #: The key of the machine without what a function of the suite's prepared in it.
    base: str
    #: Keeps the files as long as this object lives.
    lease: Lease
    #: What `config` has over the YAML.
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """The files are kept as long as somebody has this object."""
        weakref.finalize(self, self.lease.close)

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, Template) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"<Template of {self.name!r} {self.key[:12]}>"
