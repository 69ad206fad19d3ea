"""Disks and CD drives: one `-blockdev` node each, and the device the guest sees it through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pytest_maqet.errors import ConfigError
from pytest_maqet.qemu.board import Board
from pytest_maqet.qemu.inputs import Drive
from pytest_maqet.qemu.quoting import Option, Value, option_text

#: Ports of an ich9-ahci controller (hw/ide/ich.c).
_SATA_PORTS = 6
#: A virtio-blk serial number has at most 20 bytes (VIRTIO 1.2, 5.2.6.1), NVMe's too.
_SERIAL_LENGTH = 20


@dataclass
class _Places:
    """Which controllers were added so far, and the next free place on each kind."""

    vm: str
    machine: str
    found: Board
    options: list[Option] = field(default_factory=list)
    ide: int = 0
    sata: int = 0
    scsi: bool = False

    def ide_place(self, drive: Drive) -> dict[str, Value]:
        # On PCI Express machines the "IDE" buses are AHCI ports with one place each, else a cable has two.
        units = 1 if self.found.pcie else 2
        bus, unit = divmod(self.ide, units)
        if not self.found.ide:
            raise self.refusal(drive, "has no IDE bus", "use `interface: virtio`, or machine q35 or pc")
        if bus >= len(self.found.ide):
            raise self.refusal(
                drive,
                f"has only {len(self.found.ide) * units} IDE places, and all are taken",
                "use `interface: sata` or `virtio` for the others",
            )
        self.ide += 1
        return {"bus": self.found.ide[bus], "unit": unit}

    def sata_place(self, drive: Drive) -> dict[str, Value]:
        if not self.found.pci:
            raise self.refusal(drive, "has no PCI bus for a SATA controller", "use machine q35 or pc")
        controller, port = divmod(self.sata, _SATA_PORTS)
        if port == 0:
            self.options.append(Option("device", option_text("ich9-ahci", {"id": f"sata{controller}"})))
        self.sata += 1
        return {"bus": f"sata{controller}.{port}"}

    def scsi_place(self, drive: Drive) -> dict[str, Value]:
        if not self.scsi:
            kind = f"virtio-scsi-{self.virtio(drive)}"
            self.options.append(Option("device", option_text(kind, {"id": "scsi0"})))
            self.scsi = True
        return {"bus": "scsi0.0"}

    def virtio(self, drive: Drive) -> str:
        if self.found.virtio is None:
            raise self.refusal(drive, "has no bus for virtio devices", "use `interface: ide`, or machine q35")
        return self.found.virtio

    def refusal(self, drive: Drive, reason: str, hint: str) -> ConfigError:
        return ConfigError(
            f"VM '{self.vm}': storage '{drive.name}' wants interface {drive.interface}, "
            f"but machine {self.machine} {reason}",
            hint=hint,
        )


def drive_options(
    vm: str, machine: str, found: Board, drives: Sequence[Drive], *, bootable: bool
) -> list[Option]:
    """The options of all drives, in the order given.

    `bootable`: the firmware tries the drives in that order. It must be false where a kernel is booted
    directly or the user gives an order of his own.
    Raises `ConfigError` for an interface the machine has no place for, and for two drives of one name.
    """
    places = _Places(vm, machine, found)
    nodes = Counter(drive.node_name for drive in drives)
    for drive in drives:
        if nodes[drive.node_name] > 1:
            raise ConfigError(
                f"VM '{vm}': two drives are called '{drive.name}'",
                hint="rename the one under `storage:`; the drive of `image:` is called 'root'",
            )
    for number, drive in enumerate(drives, start=1):
        places.options += _node(drive)
        if drive.interface == "none":
            continue
        model, values = _device(places, drive)
        values["bootindex"] = number if bootable else None
        places.options.append(Option("device", option_text(model, values)))
    return places.options


def _node(drive: Drive) -> Iterator[Option]:
    if drive.file is None:
        return
    readonly = drive.readonly or drive.media == "cdrom"
    values: dict[str, Value] = {
        "driver": drive.format,
        "node-name": drive.node_name,
        "read-only": readonly,
        # The overlay stays small when the guest discards, and nobody waits for the host's disk: what a
        # volatile drive holds is worthless after a crash of the host, and safe from a crash of QEMU.
        "discard": None if readonly else "unmap",
        "cache.no-flush": True if drive.volatile and not readonly else None,
        "file.driver": "file",
        "file.filename": drive.file,
    }
    yield Option("blockdev", option_text(None, values))


def _device(places: _Places, drive: Drive) -> tuple[str, dict[str, Value]]:
    """The device's model and its properties but the boot index."""
    if drive.media == "cdrom":
        return _cdrom(places, drive)
    values: dict[str, Value] = {"id": f"disk-{drive.node_name}", "drive": drive.node_name}
    serial = drive.node_name[:_SERIAL_LENGTH]
    if drive.interface == "virtio":
        return f"virtio-blk-{places.virtio(drive)}", {**values, "serial": serial}
    if drive.interface == "scsi":
        return "scsi-hd", {**values, **places.scsi_place(drive), "serial": serial}
    if drive.interface == "nvme":
        if not places.found.pci:
            raise places.refusal(drive, "has no PCI bus", "use `interface: virtio`")
        return "nvme", {**values, "serial": serial}
    if drive.readonly:
        raise ConfigError(
            f"VM '{places.vm}': storage '{drive.name}' is read-only, which {drive.interface} disks cannot be",
            hint="use `interface: virtio` or `scsi`, or `type: cdrom`",
        )
    return "ide-hd", {**values, **_ata_place(places, drive), "serial": serial}


def _cdrom(places: _Places, drive: Drive) -> tuple[str, dict[str, Value]]:
    values: dict[str, Value] = {"id": f"disk-{drive.node_name}"}
    if drive.file is not None:
        values["drive"] = drive.node_name
    if drive.interface == "nvme":
        raise places.refusal(drive, "has no CD drives on NVMe", "use `interface: ide`, `sata` or `scsi`")
    # `ide` is what a CD drive gets where nothing is said, and some machines have no IDE.
    if drive.interface in ("scsi", "virtio") or (drive.interface == "ide" and not places.found.ide):
        return "scsi-cd", {**values, **places.scsi_place(drive)}
    return "ide-cd", {**values, **_ata_place(places, drive)}


def _ata_place(places: _Places, drive: Drive) -> dict[str, Value]:
    return places.sata_place(drive) if drive.interface == "sata" else places.ide_place(drive)
