"""The nursery: the small process that a test process has its keepers forked from.

A stand-alone script, started as `python -I -S keeper_nursery.py` with a unix socket as stdin. A keeper that
is forked from it is ready in a millisecond, where an interpreter of its own would take twenty; and the memory
that both have is there once. A job is a header, one byte for each batch of descriptors, and the text (see
`keeper.Job`). The first descriptor is where the keeper reports, the second its log, the others are QEMU's.

It ends with the process at the other end of the socket, by whatever signal; its keepers do not.
Facts: unix(7) for descriptors in messages, signal(7).
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import struct
import sys
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_maqet.runs import keeper

#: The length of the text and the number of descriptors.
HEADER = struct.Struct("<QI")
#: Descriptors in one message; the kernel takes 253.
BATCH = 200
#: The descriptors that come before QEMU's: the report and the log.
OURS = 2


def serve(channel: socket.socket) -> None:
    """Fork a keeper for each job, until nobody is at the other end."""
    # Keepers are nobody's children to wait for: the kernel forgets them when they end.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while job := _next_job(channel):
        text, fds = job
        try:
            pid = os.fork()
        except OSError as error:
            os.write(fds[0], f"keeper no process could be forked: {error.strerror}\n".encode())
            pid = -1
        if pid == 0:
            _become_keeper(text, fds)
        for fd in fds:
            os.close(fd)


def _next_job(channel: socket.socket) -> tuple[bytes, list[int]] | None:
    """The next job, or None when the other end is gone, maybe in the middle of one."""
    header = _exactly(channel, HEADER.size)
    if header is None:
        return None
    length, count = HEADER.unpack(header)
    fds: list[int] = []
    for wanted in batches(count):
        found = array("i")
        # Not socket.recv_fds: in Python 3.11 it drops its flags, and QEMU would inherit all of them.
        room = socket.CMSG_SPACE(wanted * found.itemsize)
        _, messages, _, _ = channel.recvmsg(1, room, socket.MSG_CMSG_CLOEXEC)
        for _, _, data in messages:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
        if len(found) != wanted:
            return None  # no room for them here (ulimit -n), or the other end is gone: it starts another one
        fds += found
    text = _exactly(channel, length)
    return None if text is None else (text, fds)


def batches(count: int) -> list[int]:
    """How many descriptors each message has."""
    return [min(BATCH, count - done) for done in range(0, count, BATCH)]


def _exactly(channel: socket.socket, length: int) -> bytes | None:
    text = bytearray()
    while len(text) < length:
        chunk = channel.recv(min(length - len(text), 1 << 16))
        if not chunk:
            return None
        text += chunk
    return bytes(text)


def _become_keeper(text: bytes, fds: list[int]) -> None:
    """Never returns."""
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for fd, number in zip((null, *fds[:OURS]), range(3), strict=True):
            os.dup2(fd, number, inheritable=False)  # 0 was the socket
        for fd in (null, *fds[:OURS]):
            os.close(fd)
        keeper.keep(text, fds[OURS:])
    finally:
        os._exit(0)  # the thread that waits for the lease may sleep for ever


def main() -> None:
    """Get ready for forking, and serve."""
    os.umask(0o077)
    os.chdir("/")
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # The thread that launched us may have had them blocked, and a mask is inherited.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    gc.freeze()  # pages that no collection touches stay shared with every keeper
    gc.disable()
    serve(socket.socket(fileno=0))


if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - -I leaves it out
    import ctypes  # noqa: F401 - every keeper needs it

    import keeper  # type: ignore[import-not-found,no-redef]

    main()
