"""Which channel commands take."""

from __future__ import annotations

import asyncio
import time

import pytest

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError
from pytest_maqet.guest.channel import PATIENCE, pick


class Answering:
    """A channel that answers, or fails, after a while; no guest behind it."""

    def __init__(self, name, seconds, error=None):
        self.name = name
        self.seconds = seconds
        self.error = error
        self.probed = False
        self.cancelled = False

    async def probe(self, deadline):
        self.probed = True
        try:
            await asyncio.sleep(min(self.seconds, deadline.remaining))
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.error or deadline.expired:
            raise ChannelError(self.error or "too late")

    async def run(self, request, deadline):
        raise NotImplementedError

    async def close(self):
        pass


def picked(*channels, timeout=10.0):
    started = time.monotonic()
    chosen = asyncio.run(pick(channels, Deadline(timeout)))
    return chosen, time.monotonic() - started


def test_the_first_that_answers_in_the_order_and_no_other_is_disturbed():
    agent, console = Answering("agent", 0.05), Answering("console", 0)
    assert picked(agent, console)[0] is agent
    assert not console.probed, "the console was typed on although the agent answered"


def test_a_certain_failure_does_not_wait():
    agent, console = Answering("agent", 0, "switched off"), Answering("console", 0)
    chosen, seconds = picked(agent, console)
    assert chosen is console
    assert seconds < PATIENCE / 2


def test_a_silent_one_is_overtaken_after_some_patience_and_given_up():
    agent, console = Answering("agent", 60), Answering("console", 0)
    chosen, seconds = picked(agent, console)
    assert chosen is console
    assert PATIENCE <= seconds < PATIENCE + 1
    assert agent.cancelled


def test_when_none_answers_each_ones_reason_is_told():
    with pytest.raises(ChannelError) as caught:
        picked(Answering("agent", 60), Answering("console", 0, "no shell"), timeout=0.5)
    assert "agent: too late" in str(caught.value)
    assert "console: no shell" in str(caught.value)


def test_no_channel_at_all():
    with pytest.raises(ChannelError, match="no way to run commands"):
        picked()
