"""Tests whose set-up, or whose own boot of plain QEMU, is measured; run by boot_cost.py."""

from __future__ import annotations

import os

import plain_qemu
import pytest

EACH = pytest.mark.parametrize("number", range(int(os.environ["BENCH_PAIRS"])))
SEEN = {}


def test_first(vm):
    SEEN["command_line"], SEEN["workdir"] = vm.command_line, vm.workdir


@EACH
def test_fixture(vm, number):
    assert vm.status == "running"


@EACH
def test_plain(number, times):
    times["plain"].append(plain_qemu.boot(SEEN["command_line"], SEEN["workdir"], b"guest ready"))
