"""Tests with a fresh machine each, by this plugin; the same work is in peer_raw and peer_labgrid."""

from __future__ import annotations

import os

import pytest


@pytest.mark.parametrize("number", range(int(os.environ["PEER_TESTS"])))
def test_in_a_fresh_guest(guest, number):
    assert guest.run("uname -s").stdout == "Linux\n"
    assert guest.run("test ! -e /tmp/left && touch /tmp/left && echo fresh").stdout == "fresh\n"
