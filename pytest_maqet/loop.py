"""The one asyncio loop of this process, in a daemon thread that lives only while somebody needs it.

QMP, consoles, guest channels and waits are coroutines on this loop; the public, blocking API hands them over
with `LoopThread.run`. The thread starts with the first lease and ends with the last one, so that a test
which uses no VM runs in a process without threads of ours (from Python 3.12 on, `os.fork` warns about any).
A lease may *rest*: then the loop stays with all its connections, and has no thread until somebody needs it.
"""

from __future__ import annotations

import asyncio
import os
import select
import selectors
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from pytest_maqet.errors import MaqetError

T = TypeVar("T")


#: How long a cancelled coroutine may take to clear up, in seconds.
_UNWINDING = 2.0
#: How many descriptors a loop opens beside the selector's.
_LOOP_DESCRIPTORS = 2


class LoopThread:
    """An asyncio loop that runs in a thread of its own, from `go_on` to `rest` or `close`."""

    def __init__(self) -> None:
        self._selector = selectors.EpollSelector()
        try:
            self.loop = _new_loop(self._selector)
        except BaseException:
            self._selector.close()
            raise
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        try:
            self.go_on()
        except BaseException:  # the system gives no thread
            self.loop.close()
            raise

    def go_on(self) -> None:
        """Run the loop in a new thread."""
        thread = threading.Thread(target=self._serve, name="pytest-maqet", daemon=True)
        thread.start()
        self._thread = thread

    def rest(self) -> None:
        """Stop the thread; what is open on the loop stays as it is, and nothing is read until `go_on`."""
        if self._thread is not None and not self.forked:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(timeout=5)
            self._thread = None

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` on the loop, block until it is done, and return its value or raise its error.

        An exception in the waiting thread (Ctrl-C, a time-out plugin) cancels the coroutine.
        Raises MaqetError in a forked child, where the loop's thread does not exist.
        """
        try:
            self.check_usable()
        except BaseException:
            coroutine.close()
            raise
        ended = threading.Event()

        async def work() -> T:
            try:
                return await coroutine
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(work(), self.loop)
        try:
            return future.result()
        except BaseException:
            if future.cancel():
                ended.wait(
                    _UNWINDING
                )  # connections are closed in order before anybody ends what they lead to
            raise

    @property
    def forked(self) -> bool:
        """Whether this is a forked child of the process whose loop it is."""
        return os.getpid() != self._pid

    def check_usable(self) -> None:
        """Raise MaqetError where blocking on this loop could never end."""
        if self.forked:
            raise MaqetError(
                "a virtual machine's handle is not valid in a forked child process",
                hint="use the handle in the process that asked for the fixture, or spawn instead of fork",
            )
        if threading.current_thread() is self._thread:
            raise MaqetError("a blocking call was made on the thread that would have to serve it")

    def part_from_parent(self) -> None:
        """A forked child lets go of the loop; it must run no coroutine on it.

        Fork copies the descriptor of the epoll instance, not the instance (epoll(7)): what the child forgets
        while it clears up, its parent would never hear of again. It gets an empty one.
        """
        own = select.epoll()
        os.dup2(own.fileno(), self._selector.fileno(), inheritable=False)
        own.close()

    def close(self) -> None:
        """Cancel what runs on the loop, stop it and join the thread. Idempotent, harmless after fork."""
        if self.loop.is_closed() or self.forked:
            return
        if self._thread is None:
            self.go_on()
        asyncio.run_coroutine_threadsafe(_cancel_all(), self.loop).result(timeout=5)
        self.rest()
        if not self.loop.is_running():
            self.loop.close()


async def _cancel_all() -> None:
    """Cancel every task but this one and wait for their ends."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _new_loop(selector: selectors.BaseSelector) -> asyncio.AbstractEventLoop:
    """A new loop; raises OSError where its descriptors (a pair of sockets) cannot be had.

    asyncio leaves half a loop behind then, which nobody can close: it is tried beforehand.
    """
    tried: list[int] = []
    try:
        while len(tried) < _LOOP_DESCRIPTORS:
            tried.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise OSError(error.errno, error.strerror) from None  # that it was /dev/null is of no interest
    finally:
        for fd in tried:
            os.close(fd)
    return asyncio.SelectorEventLoop(selector)


_guard = threading.Lock()
_current: LoopThread | None = None
_leases = 0
_resting = 0


def lease_loop() -> LoopThread:
    """The process' loop, started if need be; each lease is given back by one `release_loop`."""
    global _current, _leases  # noqa: PLW0603 - the one place that owns the process-wide loop
    with _guard:
        if _current is None:
            _current = LoopThread()
        elif not _leases:
            _current.go_on()
        _leases += 1
        return _current


def release_loop(leased: LoopThread) -> None:
    """Give a lease back; the last one ends the thread, and without resting ones the loop.

    Harmless in a forked child.
    """
    global _current, _leases  # noqa: PLW0603 - as above
    with _guard:
        if leased is not _current:
            return
        _leases -= 1
        if _leases:
            return
        if _resting:
            leased.rest()
            return
        _current = None
    leased.close()


def rest_loop(leased: LoopThread) -> None:
    """Let a lease rest: it keeps the loop, but needs no thread; `wake_loop` ends that."""
    global _resting  # noqa: PLW0603 - as above
    with _guard:
        if leased is not _current:
            return
        _resting += 1
    release_loop(leased)


def wake_loop(leased: LoopThread) -> None:
    """End a lease's rest: the thread runs again."""
    global _resting, _leases  # noqa: PLW0603 - as above
    with _guard:
        if leased is not _current:
            return
        _resting -= 1
        if not _leases:
            leased.go_on()
        _leases += 1


def _forget_in_child() -> None:
    """A forked child has no loop thread: it starts with a clean slate."""
    global _current, _leases, _resting, _guard  # noqa: PLW0603 - as above
    parents = _current
    _guard = threading.Lock()
    _current = None
    _leases = _resting = 0
    if parents is not None:
        parents.part_from_parent()


os.register_at_fork(after_in_child=_forget_in_child)


class Pulse:
    """Wakes every coroutine that waits for "something changed"; loop-thread only."""

    def __init__(self) -> None:
        self._next: asyncio.Future[None] | None = None

    def beat(self) -> None:
        """Wake all current waiters."""
        if self._next is not None and not self._next.done():
            self._next.set_result(None)
        self._next = None

    async def wait(self) -> None:
        """Return at the next beat."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._next)
