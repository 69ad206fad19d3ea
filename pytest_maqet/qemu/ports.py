"""What connects QEMU with the host: monitors, serial ports, the agent's port and network cards.

Sockets are bound by the host side and handed over as listening descriptors, so that nobody has to poll for
them and no port is ever taken by another process in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_maqet.errors import ConfigError
from pytest_maqet.qemu.board import Board
from pytest_maqet.qemu.capabilities import Capabilities
from pytest_maqet.qemu.inputs import SerialPort
from pytest_maqet.qemu.quoting import Option, Value, option_text

#: The name under which qemu-ga looks for its port.
AGENT_PORT = "org.qemu.guest_agent.0"
#: The name under which maqet-wake looks for its port (guests/wake).
WAKE_PORT = "org.maqet.wake.0"
#: The name under which maqet-exec looks for its port (guests/exec).
EXEC_PORT = "org.maqet.exec.0"
#: A PC has four places for ISA serial ports (hw/char/serial-isa.c).
_ISA_PORTS = 4


def listening_socket(name: str, fd: int, **more: Value) -> Option:
    """A character device on the listening socket `fd`, called `name`; the guest never waits for a client."""
    values: dict[str, Value] = {"id": name, "fd": fd, "server": True, "wait": False, **more}
    return Option("chardev", option_text("socket", values))


def monitor_options(fds: Sequence[int]) -> list[Option]:
    """A QMP monitor on each socket: `qmp0`, `qmp1`, …; each serves one client at a time."""
    options: list[Option] = []
    for number, fd in enumerate(fds):
        options.append(listening_socket(f"qmp{number}", fd))
        # Not `-mon`: QEMU 11.1 warns that it is deprecated.
        options.append(Option("qmp", f"chardev:qmp{number}"))
    return options


def serial_options(
    vm: str, machine: str, caps: Capabilities, found: Board, ports: Sequence[SerialPort]
) -> list[Option]:
    """The serial ports: the first is the machine's own, the others are plugged in.

    Raises `ConfigError` when the machine has no place for that many.
    """
    options: list[Option] = []
    for number, port in enumerate(ports):
        name = f"serial{number}"
        options.append(listening_socket(name, port.fd, logfile=port.logfile, logappend=True))
        if number == 0:
            options.append(Option("serial", f"chardev:{name}"))
            continue
        if found.isa and number < _ISA_PORTS and "isa-serial" in caps.devices:
            model = "isa-serial"
        elif found.pci and "pci-serial" in caps.devices:
            model = "pci-serial"
        else:
            raise ConfigError(
                f"VM '{vm}': machine {machine} has no place for serial port '{port.name}' "
                f"({len(ports)} are wanted)",
                hint="name fewer ports under `serial:`, or use machine q35",
            )
        options.append(Option("device", option_text(model, {"chardev": name, "id": f"{name}-device"})))
    return options


def agent_options(found: Board, fd: int | None) -> list[Option]:
    """The port of the guest agent, where the machine takes virtio devices."""
    if fd is None or found.virtio is None:
        return []
    values: dict[str, Value] = {"id": "ports"}
    if found.virtio == "pci":
        # Or QEMU makes an eventfd for each of its 64 queues whenever the VM goes on, and unmakes them when it
        # stops: 6 ms of a clone's start, for ports that have little to carry.
        values["ioeventfd"] = False
    return [
        Option("device", option_text(f"virtio-serial-{found.virtio}", values)),
        listening_socket("agent", fd),
        Option(
            "device",
            option_text("virtserialport", {"chardev": "agent", "name": AGENT_PORT, "id": "agent-port"}),
        ),
    ]


def wake_options(found: Board, fd: int | None) -> list[Option]:
    """The port of maqet-wake, on the bus that `agent_options` has made."""
    if fd is None or found.virtio is None:
        return []
    values: dict[str, Value] = {"chardev": "wake", "name": WAKE_PORT, "id": "wake-port"}
    return [listening_socket("wake", fd), Option("device", option_text("virtserialport", values))]


def exec_options(found: Board, fd: int | None) -> list[Option]:
    """The port of maqet-exec, on the bus that `agent_options` has made."""
    if fd is None or found.virtio is None:
        return []
    values: dict[str, Value] = {"chardev": "exec", "name": EXEC_PORT, "id": "exec-port"}
    return [listening_socket("exec", fd), Option("device", option_text("virtserialport", values))]


def user_network(
    vm: str,
    machine: str,
    caps: Capabilities,
    found: Board,
    number: int,
    forward: Mapping[int, int],
    *,
    rom: bool,
) -> list[Option]:
    """Network card `net<number>` behind QEMU's own NAT; `forward` has a host port for guest ports.

    QEMU picks a free host port itself where it is 0, so none can be taken in between; `info usernet` tells
    them.
    `rom`: the card brings the code to boot from the network, which needs the package with those ROMs.
    Raises `ConfigError` when the machine has no place for a card.
    """
    name = f"net{number}"
    rules = [f"hostfwd=tcp:127.0.0.1:{host}-:{port}" for port, host in forward.items()]
    netdev = Option("netdev", ",".join([option_text("user", {"id": name}), *rules]))
    values: dict[str, Value] = {"netdev": name, "id": f"{name}-device"}
    if found.virtio:
        values["romfile"] = "" if found.virtio == "pci" and not rom else None
        # For guests that have moved to another host (VIRTIO_NET_F_GUEST_ANNOUNCE). A clone is where its
        # template was; its network manager need not wake five times in its first second. (After the
        # migration parameter `announce-rounds: 0` QEMU 7.2 crashes when the guest resets the card.)
        values["guest_announce"] = False
        return [netdev, Option("device", option_text(f"virtio-net-{found.virtio}", values))]
    if found.isa and "ne2k_isa" in caps.devices:
        return [netdev, Option("device", option_text("ne2k_isa", values))]
    raise ConfigError(
        f"VM '{vm}': machine {machine} has no place for a network card that is known here",
        hint="leave `network:` out and give `netdev` and `device` under `arguments:`, or use machine q35",
    )
