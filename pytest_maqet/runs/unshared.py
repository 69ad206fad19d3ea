"""A descriptor with a lock on it that a forked child would share, and keep after its parent has ended."""

from __future__ import annotations

import contextlib
import os

_open: set[Unshared] = set()


class Unshared:
    """An open descriptor of this process; in a forked child it is closed, and never closed by mistake."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        _open.add(self)

    @property
    def held(self) -> bool:
        """Whether it is open; False in a forked child."""
        return self._descriptor >= 0

    def fileno(self) -> int:
        """The descriptor, as for fcntl.flock; raises ValueError where it is not open."""
        if not self.held:
            raise ValueError("it was closed, or belongs to the process that this one was forked from")
        return self._descriptor

    def close(self) -> None:
        """Close it. Idempotent."""
        if self.held:
            _open.discard(self)
            os.close(self._descriptor)
            self._descriptor = -1


def _close_in_child() -> None:
    for one in [*_open]:
        with contextlib.suppress(OSError):
            one.close()


os.register_at_fork(after_in_child=_close_in_child)
