"""Images from the network: downloaded once for all processes of a host, verified, resumed where it broke."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from pytest_maqet.config import RemoteImage
from pytest_maqet.errors import LockTimeout, StartError
from pytest_maqet.host_cache import cache_dir
from pytest_maqet.runs.locks import held_lock
from pytest_maqet.runs.use_marks import mark_used
from pytest_maqet.storage.partial import Partial
from pytest_maqet.storage.transfer import Broken, transfer

#: The folder of downloaded images in the cache.
FOLDER = "images"
#: How often a download is begun or taken up again before it is given up.
TRIES = 4
#: Another process may need this long for the same download, in seconds.
LOCK_TIMEOUT = 3600.0
#: Endings of what lies beside an image while it is downloaded.
LOCK, PART = ".lock", ".part"

Report = Callable[[str], None]


def fetched(image: RemoteImage, *, report: Report | None = None) -> Path:
    """The file of a remote image in the host's cache; nothing is asked of the server where it is there.

    `report` gets a line when the download begins and from time to time. What has arrived of one that broke
    is kept, and the next call goes on from there.
    Raises StartError when the image cannot be had, or is not what its checksum says (nothing of it is kept
    then); LockTimeout when another process downloads it for longer than `LOCK_TIMEOUT`.
    """
    kind, wanted = ("sha256", image.sha256) if image.sha256 else ("sha512", image.sha512)
    assert wanted is not None
    target = cache_dir(FOLDER) / f"{kind}-{wanted}"
    mark_used(target)
    if target.exists():
        return target
    _refuse_password(image.url)
    report = report or _silence
    if not _fetched_at_once(image.url, kind, wanted, target, report):
        _fetch_locked(image.url, kind, wanted, target, report, timeout=LOCK_TIMEOUT)
    return target


def _silence(_: str) -> None:
    """Tell nobody."""


def _refuse_password(url: str) -> None:
    """A password in a URL would be in logs and reports of ours and of the server's."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        shown = parts._replace(netloc=f"…@{parts.netloc.rpartition('@')[2]}").geturl()
        raise StartError(
            f"the URL {shown} has a user name in it, and downloads do not log in",
            hint="download the image yourself and name its path",
        )


def _fetched_at_once(url: str, kind: str, wanted: str, target: Path, report: Report) -> bool:
    """False when another process is at it, which is said."""
    try:
        _fetch_locked(url, kind, wanted, target, report, timeout=0)
    except LockTimeout as busy:
        report(f"waiting for {url}, which is being downloaded by {busy.holder or 'another process'}")
        return False
    return True


def _fetch_locked(url: str, kind: str, wanted: str, target: Path, report: Report, *, timeout: float) -> None:
    lock = target.with_suffix(LOCK)
    partial = Partial(target.with_suffix(PART))
    with held_lock(lock, timeout=timeout, what=f"the download of {url}", owner="image download"):
        if target.exists():  # whoever held the lock has just fetched it
            return
        try:
            _fetch(url, kind, wanted, partial, report)
            partial.finish(target)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                partial.remove()
            raise StartError(
                f"{url} cannot be kept in {target.parent}: {error.strerror or error}",
                hint="name another directory in MAQET_CACHE_DIR",
            ) from error


def _fetch(url: str, kind: str, wanted: str, partial: Partial, report: Report) -> None:
    """Make `partial` whole and verified, or raise."""
    resumed = _arrived(url, partial, report)
    found = partial.digest(kind)
    if found != wanted and resumed:
        # Two versions of a file, one after the other? Then from the beginning it is right.
        partial.remove()
        _arrived(url, partial, report)
        found = partial.digest(kind)
    if found != wanted:
        partial.remove()
        raise StartError(
            f"{url} is not what the configuration says: its {kind} is {found}, wanted is {wanted}",
            hint="the file on the server has changed, or the checksum is of another file",
        )


def _arrived(url: str, partial: Partial, report: Report) -> bool:
    """Download all of it; whether what an earlier attempt had left was used."""
    for attempt in range(1, TRIES + 1):
        try:
            return transfer(url, partial, report)
        except Broken as error:
            if attempt == TRIES:
                kept = f"the {partial.size} bytes that have arrived are kept; the next try goes on there"
                hint = kept if partial.size else "is the server up, and can it be reached from this host?"
                raise StartError(f"{url} cannot be downloaded: {error}", hint=hint) from error
            report(f"{url}: {error}; trying again")
    raise AssertionError("the last attempt returns or raises")
