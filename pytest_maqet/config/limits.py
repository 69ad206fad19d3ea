"""How big a configuration may be; each limit is enforced while it is read, on every way in."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds of one configuration; far above what people write, far below what hurts.

    They keep a broken or hostile file from costing more than about a second of CPU time and 200 MB of memory:
    `tests/fuzz` measures that. Values are counted as they are written: a mapping, a list, a key and a scalar
    are one each.
    """

    #: Bytes of all files together, asked of the open file before anything is read; and of what their
    #: variables become.
    file_bytes: int = 8 * _MIB
    #: Files given on one command line.
    files: int = 100
    #: Mappings and sequences inside each other.
    nesting: int = 64
    #: Keys of one mapping.
    keys: int = 100_000
    #: Values of all files together, those that aliases (`*name`) repeat counted each time.
    values: int = 200_000
    #: Characters of one scalar, variables put in.
    scalar_characters: int = 1 * _MIB
    #: VMs of the whole configuration.
    vms: int = 10_000
    #: Storage devices of the whole configuration, inherited ones counted for every VM.
    devices: int = 20_000
    #: Values of all VMs together, inherited ones counted for every VM.
    resolved_values: int = 200_000


@dataclass
class Tally:
    """What was read so far, all files together."""

    bytes: int = 0
    values: int = 0
    #: characters of texts with variables put in
    expanded: int = 0


#: The limits that hold unless a caller gives others.
DEFAULT_LIMITS = Limits()
