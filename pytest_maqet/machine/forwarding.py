"""Host ports that QEMU's user network forwards to the guest: asked of QEMU, and added at run time."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import NotSupported

if TYPE_CHECKING:
    from pytest_maqet.machine.life import Life

_FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+(\S+)\s+(\d+)\s+\S+\s+(\d+)")


async def forwards(life: Life, deadline: Deadline) -> dict[int, tuple[str, int]]:
    """Guest TCP port → (host, port), as QEMU's user network has them now."""
    listing = await life.monitor_command("info usernet", deadline)
    found = {}
    for host, port, guest_port in _FORWARD.findall(listing):
        found[int(guest_port)] = ("127.0.0.1" if host in ("*", "0.0.0.0") else host, int(port))  # noqa: S104
    return found


async def forward(life: Life, guest_port: int, deadline: Deadline) -> tuple[str, int]:
    """Where the host reaches this guest port; a forward is added where there is none yet.

    Raises NotSupported for a VM without a user network.
    """
    if not isinstance(guest_port, int) or not 0 < guest_port < 65536:
        raise ValueError(f"a TCP port is a number from 1 to 65535, not {guest_port!r}")
    found = await forwards(life, deadline)
    if guest_port in found:
        return found[guest_port]
    if not any(network.kind == "user" for network in life.config.network):
        raise NotSupported(
            f"{life.config.name}: port {guest_port} of the guest cannot be reached: "
            "the VM has no user network",
            hint=f"in the YAML: `network: [{{user: {{forward: {{name: {guest_port}}}}}}}]`",
        )
    said = await life.monitor_command(f"hostfwd_add tcp:127.0.0.1:0-:{guest_port}", deadline)
    found = await forwards(life, deadline)
    if guest_port not in found:
        raise NotSupported(f"{life.config.name}: QEMU did not forward port {guest_port}: {said.strip()}")
    return found[guest_port]
