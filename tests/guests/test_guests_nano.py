"""builtin:nano under plain QEMU: it boots at once, answers lines and does what a machine can do."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from pytest_maqet.guests.builtin import BuiltinGuest

BOARDS = pytest.mark.parametrize("board", ["q35", "pc"])


@BOARDS
def test_it_boots_and_echoes_lines(boot, nano: BuiltinGuest, board: str) -> None:
    machine = boot(nano, "-machine", board)
    machine.wait(r"^maqet nano: guest ready$")
    took = time.monotonic() - machine.started
    assert took < 5, f"a boot sector took {took:.1f} s to its banner"
    machine.send("hello there")
    machine.send("  and again\r")
    assert machine.wait(r"^echo: hello there$\n^echo:   and again$"), "lines come back in order"


@BOARDS
def test_the_power_button_powers_off(boot, nano: BuiltinGuest, board: str) -> None:
    machine = boot(nano, "-machine", board)
    machine.wait("guest ready")
    machine.command("system_powerdown")
    assert machine.event("SHUTDOWN")["data"] == {"guest": True, "reason": "guest-shutdown"}
    assert machine.command("query-status")["status"] == "shutdown"


@BOARDS
def test_it_survives_a_reset_from_outside(boot, nano: BuiltinGuest, board: str) -> None:
    machine = boot(nano, "-machine", board)
    for _ in range(3):
        machine.wait("guest ready")
        machine.command("system_reset")
        machine.event("RESET")
    machine.wait("guest ready")
    machine.command("system_powerdown")
    machine.event("SHUTDOWN")


@BOARDS
def test_commands_on_the_serial_port(boot, nano: BuiltinGuest, board: str) -> None:
    machine = boot(nano, "-machine", board)
    machine.wait("guest ready")
    machine.send("reset")
    assert machine.event("RESET")["data"]["guest"] is True
    machine.wait("guest ready")
    machine.send("poweroff")
    assert machine.event("SHUTDOWN")["data"]["reason"] == "guest-shutdown"


def test_a_panic_reaches_qemu_and_the_console(boot, nano: BuiltinGuest) -> None:
    machine = boot(nano, "-machine", "q35")
    machine.wait("guest ready")
    machine.send("panic")
    assert machine.event("GUEST_PANICKED")["data"]["action"] == "pause"
    machine.command("system_reset")
    machine.command("cont")
    machine.wait("guest ready")


def test_a_flood_counts_down(boot, nano: BuiltinGuest) -> None:
    machine = boot(nano, "-machine", "q35")
    machine.wait("guest ready")
    machine.send("flood 1000")
    machine.send("after")
    lines = machine.wait("^echo: after\n").split("\n")[1:-2]
    assert lines == [f"flood {number:04X}" for number in range(999, -1, -1)]


def test_a_line_that_does_not_fit_is_cut_and_harms_nothing(boot, nano: BuiltinGuest) -> None:
    machine = boot(nano, "-machine", "q35")
    machine.wait("guest ready")
    machine.send("x" * 4000)
    assert len(machine.wait(r"^echo: x+\n").strip()) == len("echo: ") + 512
    machine.send("fine")
    machine.wait("^echo: fine$")


def test_it_needs_no_board_with_power_management(boot, nano: BuiltinGuest) -> None:
    machine = boot(nano, "-machine", "q35", "-no-acpi")
    machine.wait("guest ready")
    machine.send("hello")
    machine.wait("^echo: hello$")


def test_idle_it_costs_next_to_nothing(boot, nano: BuiltinGuest) -> None:
    machine = boot(nano, "-machine", "q35")
    machine.wait("guest ready")
    before, since = machine.cpu_seconds(), time.monotonic()
    with pytest.raises(AssertionError, match="no 'never'"):
        machine.wait("never", timeout=2)
    share = (machine.cpu_seconds() - before) / (time.monotonic() - since)
    assert share < 0.1, f"an idle guest took {share:.0%} of a core"


def test_the_image_is_what_the_source_says(nano: BuiltinGuest, tmp_path: Path) -> None:
    if shutil.which("nasm") is None:
        pytest.skip("nasm is not installed")
    assert nano.image is not None
    source = nano.image.with_suffix(".asm")
    subprocess.run(["nasm", "-f", "bin", source, "-o", tmp_path / "made.img"], check=True, timeout=30)
    assert (tmp_path / "made.img").read_bytes() == nano.image.read_bytes(), (
        f"assemble {source.name} again and check the image in"
    )
