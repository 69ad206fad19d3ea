"""Why there is no template: reasons for which a VM boots instead, told apart from errors that are its own."""

from __future__ import annotations

import errno
import os
import signal

from pytest_maqet.errors import DiskError, QemuDied, StartError

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})
#: In the words of qemu-img and QEMU, whose errors come as text.
_NO_ROOM_WORDS = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS))


class OfSuite(Exception):
    """An error of the suite's own function, which is none of ours, whatever its type."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class NoTemplate(Exception):
    """There is no template, for this reason, and none can be made. `hint`: what to do, if that is known."""

    def __init__(self, reason: str, *, hint: str | None = None) -> None:
        super().__init__(reason)
        self.hint = hint


def no_room(error: Exception) -> str | None:
    """Why a template could not be written, where that is the disk's fault and the VM can boot instead."""
    if isinstance(error, OSError):
        return f"it could not be written: {error.strerror}" if error.errno in _NO_ROOM else None
    if isinstance(error, DiskError):
        return error.message.splitlines()[0]
    text = str(error)
    if isinstance(error, (QemuDied, StartError)) and f"({signal.SIGBUS.name})" in text:
        return "the disk became full while it was made"
    if "MiB free" in text or any(words in text for words in _NO_ROOM_WORDS):
        return text.splitlines()[0]
    return None
