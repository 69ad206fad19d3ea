"""Tells at once when a file on this host has grown, by inotify(7); one instance for all files of a loop.

inotify instances are scarce (128 per user on many hosts), so there is one per loop and not one per VM. Where
none can be had, files are looked at every `FALLBACK_INTERVAL` seconds instead.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from weakref import WeakKeyDictionary

from inotify_simple import INotify, flags

#: How often files are looked at where the kernel gives no inotify instance, in seconds.
FALLBACK_INTERVAL = 0.01


class FileWatch:
    """Calls back, on the loop, whenever a watched file was written to."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._polled: dict[int, asyncio.TimerHandle] = {}
        self._serial = 0
        try:
            self._inotify: INotify | None = INotify(nonblocking=True)
        except OSError:
            self._inotify = None

    def add(self, path: Path, callback: Callable[[], None]) -> int:
        """Call `callback` after each write to `path`; returns a number for `remove`."""
        if self._inotify is None:
            self._serial -= 1
            self._poll(self._serial, callback)
            return self._serial
        if not self._callbacks:
            self._loop.add_reader(self._inotify.fileno(), self._read)
        number: int = self._inotify.add_watch(path, flags.MODIFY)
        self._callbacks[number] = callback
        return number

    def remove(self, number: int) -> None:
        """Stop calling back; unknown numbers are ignored."""
        timer = self._polled.pop(number, None)
        if timer is not None:
            timer.cancel()
        if self._callbacks.pop(number, None) is None or self._inotify is None:
            return
        with contextlib.suppress(OSError):  # the file is gone, and its watch with it
            self._inotify.rm_watch(number)
        if not self._callbacks:
            self._loop.remove_reader(self._inotify.fileno())

    def close(self) -> None:
        """Give the inotify instance back."""
        for number in [*self._callbacks, *self._polled]:
            self.remove(number)
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def _read(self) -> None:
        assert self._inotify is not None
        numbers = {event.wd for event in self._inotify.read(timeout=0)}
        for number in numbers:
            callback = self._callbacks.get(number)
            if callback is not None:
                callback()

    def _poll(self, number: int, callback: Callable[[], None]) -> None:
        callback()
        self._polled[number] = self._loop.call_later(FALLBACK_INTERVAL, self._poll, number, callback)


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[FileWatch, list[int]]] = WeakKeyDictionary()


def lease_watch(loop: asyncio.AbstractEventLoop) -> FileWatch:
    """The loop's watch, made at the first lease; each lease is given back by one `release_watch`."""
    if loop not in _watches:
        _watches[loop] = (FileWatch(loop), [0])
    watch, leases = _watches[loop]
    leases[0] += 1
    return watch


def release_watch(loop: asyncio.AbstractEventLoop) -> None:
    """Give a lease back; the last one closes the watch."""
    watch, leases = _watches[loop]
    leases[0] -= 1
    if leases[0] == 0:
        del _watches[loop]
        watch.close()
