"""How big a configuration may be; each limit is enforced while it is read, on every way in."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds of one configuration; far above what people write, far below what hurts.

    They keep a broken or hostile file from costing more than a second and some hundred megabytes.
    """

    #: Size of one file in bytes, asked of the open file before anything is read.
    file_bytes: int = 16 * _MIB
    #: Files given on one command line.
    files: int = 100
    #: Mappings and sequences inside each other.
    nesting: int = 64
    #: Keys of one mapping.
    keys: int = 100_000
    #: Values of one file, those that aliases (`*name`) repeat counted each time.
    values: int = 1_000_000
    #: Characters of one scalar.
    scalar_characters: int = 1 * _MIB
    #: VMs of the whole configuration.
    vms: int = 10_000
    #: Storage devices of the whole configuration, inherited ones counted for every VM.
    devices: int = 100_000
    #: Values of all VMs together, inherited ones counted for every VM.
    resolved_values: int = 2_000_000


#: The limits that hold unless a caller gives others.
DEFAULT_LIMITS = Limits()
