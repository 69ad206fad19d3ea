"""Answers of QEMU programs, kept in the host cache as small JSON files.

A kept answer is never trusted further than its shape: whatever is unreadable, half-written or of another
version counts as not there, and is asked again. Where nothing can be kept (a read-only home), each process
asks once for itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pytest_maqet.errors import StartError
from pytest_maqet.host_cache import cache_dir

#: Raised whenever what is kept changes its form or its meaning.
_FORM = 2
#: Seconds to wait for another process that asks the same; after that, ask as well.
_PATIENCE = 30.0
#: No answer is near this size; a larger file is not ours.
_LARGEST = 4 << 20


def digest(*parts: str) -> str:
    """A name for an answer: a short digest of all it depends on."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:32]


def read_answer(kind: str, key: str) -> dict[str, Any] | None:
    """The answer kept under `kind` and `key`, or None."""
    try:
        path = _path(kind, key)
        if path.stat().st_size > _LARGEST:
            return None
        kept = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError, StartError):
        return None
    if not isinstance(kept, dict) or kept.get("form") != _FORM or kept.get("key") != key:
        return None
    answer = kept.get("answer")
    return answer if isinstance(answer, dict) else None


def keep_answer(kind: str, key: str, answer: Mapping[str, Any]) -> None:
    """Keep an answer for later runs; does nothing where that is impossible."""
    text = json.dumps({"form": _FORM, "key": key, "answer": answer})
    with contextlib.suppress(OSError, StartError):
        path = _path(kind, key)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".new")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def only_one_asks(kind: str, key: str) -> Iterator[None]:
    """Held while asking, so that of several processes one asks and the others read its answer.

    Gives up silently where no lock can be had: asking twice costs time and nothing else.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, StartError, Timeout, NotImplementedError):
            path = _path(kind, key).with_suffix(".lock")
            lock = FileLock(path, timeout=_PATIENCE, thread_local=False, fallback_to_soft=False)
            stack.enter_context(lock)
        yield


def _path(kind: str, key: str) -> Path:
    return cache_dir(kind) / f"{key}.json"
