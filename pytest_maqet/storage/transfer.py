"""One HTTP request for a file, or for the rest of one whose beginning is there already (RFC 9110, 14)."""

from __future__ import annotations

import http.client
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from pytest_maqet.errors import StartError
from pytest_maqet.storage.partial import Partial

#: Silence of the server that is taken for its end, in seconds.
SILENCE = 30.0
#: How often progress is told, in seconds.
PROGRESS = 5.0
#: What is read at once, in bytes; as much is lost when a connection breaks.
_CHUNK = 1 << 16
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class Broken(Exception):
    """The transfer did not come to its end, and another one may."""


def transfer(url: str, partial: Partial, report: Callable[[str], None]) -> bool:
    """Ask for the file, or for what is missing of it, and write what comes to `partial`.

    The rest alone is asked for only where the server had said which version it is of (If-Range); a server
    that has another version now, or that cannot send parts, sends everything, and that is taken.
    Gives whether an older beginning was used. Raises Broken, and StartError where trying again is no use;
    OSError is a fault of this host's disk.
    """
    version = partial.version_of(url)
    have = partial.size if version is not None else 0
    headers = {"User-Agent": "pytest-maqet"}
    if have and version is not None:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    answer = _asked(urllib.request.Request(url, headers=headers))  # noqa: S310 - config allows http(s) only
    if answer is None:
        return True
    with answer:
        if answer.status == 206 and have:
            _check_part(answer, partial, have)
        elif answer.status == 200:
            have = 0
            partial.begin(url, _version(answer))
        else:
            raise StartError(f"{url}: the server answered {answer.status}, which is no file")
        _receive(url, answer, partial, have, report)
    return have > 0


def _asked(request: urllib.request.Request) -> Any:
    """The answer; None when there is nothing behind the beginning that we have."""
    try:
        return urllib.request.urlopen(request, timeout=SILENCE)  # noqa: S310 - config allows http(s) only
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and request.has_header("Range"):
            return None
        hint = "the image has moved, or its URL is wrong" if error.code in (404, 410) else None
        raise StartError(
            f"{request.full_url}: the server answered {error.code} {error.reason}", hint=hint
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise Broken(_words(error)) from error
    except ValueError as error:
        raise StartError(f"{request.full_url} is no URL that can be asked for: {error}") from error


def _check_part(answer: Any, partial: Partial, have: int) -> None:
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != have:
        partial.remove()
        raise Broken("the server sent another part of the file than was asked for")


def _version(answer: Any) -> str | None:
    """What the server calls this version; a weak ETag says too little for parts to fit (RFC 9110, 13.1.5)."""
    etag: str = answer.headers.get("ETag", "")
    return etag if etag.startswith('"') else answer.headers.get("Last-Modified")


def _receive(url: str, answer: Any, partial: Partial, have: int, report: Callable[[str], None]) -> None:
    length = answer.headers.get("Content-Length", "")
    missing = int(length) if length.isdecimal() else None
    whole = have + missing if missing is not None else None
    _check_room(url, partial, missing)
    report(f"downloading {url}{_amount(have, whole)}")
    told = time.monotonic()
    with partial.opened() as file:
        while data := _read(answer):
            file.write(data)
            have += len(data)
            if time.monotonic() - told >= PROGRESS:
                told = time.monotonic()
                report(f"downloading {url}{_amount(have, whole)}")
    if whole is not None and have < whole:  # http.client does not say so by itself
        raise Broken(f"the connection ended {whole - have} bytes too early")


def _read(answer: Any) -> bytes:
    try:
        data: bytes = answer.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise Broken(_words(error)) from error
    return data


def _check_room(url: str, partial: Partial, missing: int | None) -> None:
    """Before, not when the disk is full: others need it, too."""
    free = shutil.disk_usage(partial.data.parent).free
    if missing is not None and missing > free:
        raise StartError(
            f"{url} does not fit into {partial.data.parent}: {_megabytes(missing)} are missing of it, "
            f"{_megabytes(free)} are free",
            hint="make room, or name another directory in MAQET_CACHE_DIR",
        )


def _amount(have: int, whole: int | None) -> str:
    if whole is None:
        return f", {_megabytes(have)} so far" if have else ""
    return f", {_megabytes(have)} of {_megabytes(whole)}" if have else f", {_megabytes(whole)}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _words(error: BaseException) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return f"the server said nothing for {SILENCE:g} s"
    if isinstance(reason, http.client.HTTPException):
        return f"the server's answer makes no sense ({type(reason).__name__})"
    return str(getattr(reason, "strerror", None) or reason)
