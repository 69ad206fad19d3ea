"""Tracebacks that end where the user's code ends: how we came to raise an error helps nobody."""

from __future__ import annotations

from types import TracebackType

import pytest

from pytest_maqet.errors import MaqetError

#: Where frames are not the user's.
_OURS = ("pytest_maqet.", "_pytest.", "pluggy.")


def shorten(item: pytest.Item, error: BaseException) -> str | None:
    """Cut our own frames off the end of an error's traceback; with `--full-trace` nothing is cut.

    Returns the error's text when nothing of the user's is in the traceback: that is all there is to show.
    """
    if not isinstance(error, MaqetError) or item.config.option.fulltrace:
        return None
    last = _last_frame_of_the_user(error.__traceback__)
    if last is None:
        return f"{type(error).__name__}: {error}"
    last.tb_next = None
    return None


def _last_frame_of_the_user(trace: TracebackType | None) -> TracebackType | None:
    """The last entry before our code begins."""
    found: TracebackType | None = None
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if found is not None and module.startswith("pytest_maqet."):
            return found
        if not module.startswith(_OURS):
            found = trace
        trace = trace.tb_next
    return found
