"""Tests with a fresh machine each, by labgrid; the same work is in peer_raw and peer_maqet."""

from __future__ import annotations

import os

import pytest


@pytest.mark.parametrize("number", range(int(os.environ["PEER_TESTS"])))
def test_in_a_fresh_guest(shell, number):
    assert shell.run_check("uname -s") == ["Linux"]
    assert shell.run_check("test ! -e /tmp/left && touch /tmp/left && echo fresh") == ["fresh"]
