"""Devices every VM gets where its machine takes them, and how QEMU acts on the guest's end."""

from __future__ import annotations

from pytest_maqet.qemu.board import Board
from pytest_maqet.qemu.capabilities import Capabilities
from pytest_maqet.qemu.quoting import Option, option_text


def extra_devices(caps: Capabilities, found: Board, *, generation_id: bool = True) -> list[Option]:
    """Random numbers, the panic notifier and the generation id.

    The guest's kernel waits for no entropy; tells QEMU of its panic; and learns that it was copied, except
    without `generation_id`.
    """
    options = []
    if found.virtio:
        options.append(Option("device", option_text(f"virtio-rng-{found.virtio}", {"id": "rng"})))
    panic = _panic_device(caps, found)
    if panic is not None:
        options.append(Option("device", option_text(panic, {"id": "panic"})))
    if found.vmgenid and generation_id:
        options.append(Option("device", option_text("vmgenid", {"guid": "auto", "id": "generation"})))
    return options


def end_actions() -> list[Option]:
    """After a panic or power-off QEMU stays, paused, until it has been asked what happened."""
    return [Option("action", option_text(None, {"panic": "pause", "shutdown": "pause"}))]


def _panic_device(caps: Capabilities, found: Board) -> str | None:
    if found.isa and "pvpanic" in caps.devices:
        return "pvpanic"
    if found.pci and "pvpanic-pci" in caps.devices:
        return "pvpanic-pci"
    return None
