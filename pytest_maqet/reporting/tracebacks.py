"""Tracebacks that end where the user's code ends: how we came to raise an error helps nobody."""

from __future__ import annotations

import sysconfig
from types import TracebackType

import pytest

from pytest_maqet.errors import MaqetError

#: Modules whose frames are not the user's: ours, what runs tests, and what we stand on.
_NOT_THE_USERS = ("pytest_maqet.", "_pytest.", "pluggy.", "qemu.qmp", "filelock.", "pydantic.")
_STANDARD_LIBRARY = sysconfig.get_path("stdlib")
_INSTALLED = ("site-packages", "dist-packages")


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
    """The last entry that is in the user's code, or in a library that is neither ours nor Python's."""
    found: TracebackType | None = None
    while trace is not None:
        if _is_the_users(trace):
            found = trace
        trace = trace.tb_next
    return found


def _is_the_users(trace: TracebackType) -> bool:
    code = trace.tb_frame.f_code.co_filename
    if str(trace.tb_frame.f_globals.get("__name__", "")).startswith(_NOT_THE_USERS):
        return False
    standard = code.startswith(_STANDARD_LIBRARY) and not any(part in code for part in _INSTALLED)
    return not standard and not code.startswith("<frozen")
