"""Images from the network: downloaded once for all processes of a host, verified, resumed where it broke."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from pytest_maqet.config import RemoteImage
from pytest_maqet.errors import StartError
from pytest_maqet.host_cache import cache_dir
from pytest_maqet.runs.locks import held_lock

#: Silence of the server that is taken for its end, in seconds.
SILENCE = 30.0
#: How often a download that broke is taken up again.
TRIES = 3
#: Another process may need this long for the same download, in seconds.
LOCK_TIMEOUT = 3600.0


def fetched(image: RemoteImage) -> Path:
    """The file of a remote image in the host's cache.

    Raises StartError when it cannot be had, or is not what its checksum says; nothing of it is kept then.
    """
    kind, wanted = ("sha256", image.sha256) if image.sha256 else ("sha512", image.sha512)
    assert wanted is not None
    target = cache_dir("images") / f"{kind}-{wanted}"
    if target.exists():
        return target
    what = f"the download of {image.url}"
    with held_lock(target.with_suffix(".lock"), timeout=LOCK_TIMEOUT, what=what, owner="image download"):
        if not target.exists():
            _download(image.url, kind, wanted, target)
    return target


def _download(url: str, kind: str, wanted: str, target: Path) -> None:
    partial = target.with_suffix(".part")
    for attempt in range(TRIES):
        try:
            _continue(url, partial)
            break
        except urllib.error.HTTPError as error:
            if error.code == 416:  # nothing left to send: it was whole already
                break
            raise StartError(f"{url}: the server answered {error.code} {error.reason}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            if attempt == TRIES - 1:
                raise StartError(
                    f"{url} cannot be downloaded: {error}",
                    hint="what has arrived is kept; the next try goes on",
                ) from error
    with partial.open("rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    if found != wanted:
        partial.unlink()
        raise StartError(
            f"{url} is not what the configuration says: its {kind} is {found}, wanted is {wanted}",
            hint="the file on the server has changed, or the checksum is of another file",
        )
    partial.chmod(0o400)
    partial.replace(target)


def _continue(url: str, partial: Path) -> None:
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310
    with urllib.request.urlopen(request, timeout=SILENCE) as answer:  # noqa: S310 - the scheme is checked in config
        resumed = answer.status == 206
        length = answer.headers.get("Content-Length")
        with partial.open("ab" if resumed else "wb") as file:
            shutil.copyfileobj(answer, file, 1024 * 1024)
            got = file.tell() - (have if resumed else 0)
    if length is not None and got < int(length):
        raise http.client.IncompleteRead(b"", int(length) - got)
