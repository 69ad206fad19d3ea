"""Tests that work in a Linux guest: commands, a template with `prepare:`, a checkpoint of it."""

import pytest


@pytest.mark.parametrize("number", range(2))
def test_command(linux, number):
    assert linux.run(f"echo $(({number} + 1))").stdout == f"{number + 1}\n"


@pytest.mark.parametrize("number", range(2))
def test_prepared(prepared, number):
    assert prepared.run("cat /state").stdout == "prepared\n"


def test_checkpoint_in_guest(prepared):
    prepared.checkpoint("prepared")
    prepared.run("rm /state")
    prepared.restore("prepared")
    assert prepared.run("cat /state").stdout == "prepared\n"
