"""Tests with a fresh machine each, with nothing but pytest; the same work is in peer_labgrid, peer_maqet."""

from __future__ import annotations

import os

import pytest


@pytest.mark.parametrize("number", range(int(os.environ["PEER_TESTS"])))
def test_in_a_fresh_guest(guest, number):
    assert guest.run("uname -s") == "Linux"
    assert guest.run("test ! -e /tmp/left && touch /tmp/left && echo fresh") == "fresh"
