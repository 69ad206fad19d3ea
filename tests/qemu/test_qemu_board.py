"""The buses of machines, as the real ones have them."""

from __future__ import annotations

import pytest

from pytest_maqet.qemu.board import Board, board
from pytest_maqet.qemu.capabilities import Capabilities


@pytest.mark.parametrize(
    ("machine", "pcie", "pci", "isa", "ide", "virtio"),
    [
        ("q35", "pcie.0", "pcie.0", "isa.0", 6, "pci"),
        ("pc", None, "pci.0", "isa.0", 2, "pci"),
        ("isapc", None, None, "isa.0", 2, None),
        ("microvm", None, None, "isa.0", 0, "device"),
        ("microvm,pcie=on", "pcie.0", "pcie.0", "isa.0", 0, "pci"),
        ("microvm,isa-serial=off", None, None, "isa.0", 0, "device"),
    ],
)
def test_the_buses_of_a_machine_are_found(
    machine: str,
    pcie: str | None,
    pci: str | None,
    isa: str,
    ide: int,
    virtio: str | None,
    caps: Capabilities,
) -> None:
    found = board(caps, machine)
    assert (found.pcie, found.pci, found.isa, len(found.ide), found.virtio) == (pcie, pci, isa, ide, virtio)


@pytest.mark.parametrize(("machine", "vga"), [("q35", True), ("pc", True), ("microvm", False)])
def test_extras_are_what_the_machine_takes(machine: str, vga: bool, caps: Capabilities) -> None:
    found = board(caps, machine)
    assert (found.vmgenid, found.cpu_max, found.vga) == (True, True, vga)


def test_a_machine_that_needs_more_is_asked_without_its_options(caps: Capabilities) -> None:
    assert board(caps, "q35,memory-backend=elsewhere") == board(caps, "q35")


def test_a_machine_that_cannot_be_made_has_nothing(caps: Capabilities) -> None:
    assert board(caps, "no-such-machine") == Board(buses={})


def test_the_empty_machine_has_no_place_for_anything(caps: Capabilities) -> None:
    found = board(caps, "none")
    assert (found.pci, found.isa, found.virtio, found.vmgenid) == (None, None, None, False)
