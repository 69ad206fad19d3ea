"""Storage on every interface: the real QEMU takes it, and sees the file that was meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from qemu_start import Bench, device_lines, model_of, running, status

from pytest_maqet.errors import ConfigError
from pytest_maqet.qemu.inputs import Drive, Interface, node_name

DISKS = {
    "virtio": "virtio-blk-pci",
    "ide": "ide-hd",
    "sata": "ide-hd",
    "scsi": "scsi-hd",
    "nvme": "nvme",
}


@pytest.mark.parametrize("machine", ["q35", "pc", "microvm,pcie=on"])
@pytest.mark.parametrize("form", ["qcow2", "raw"])
@pytest.mark.parametrize("interface", [*DISKS, "none"])
def test_a_disk_is_taken_on_every_interface(
    interface: Interface, form: str, machine: str, bench: Bench
) -> None:
    if interface == "ide" and machine.startswith("microvm"):
        pytest.skip("a microvm has no IDE: refused in a test of its own")
    disk = bench.disk(f"disk.{form}", form)
    command_line = bench.build(bench.inputs(Drive("data", disk, form, interface)), machine=machine)
    with running(bench, command_line) as execute:
        nodes = {one["node-name"]: one for one in execute("query-named-block-nodes")}
        assert nodes["data"]["image"]["filename"] == str(disk), "the node is called as the drive is"
        assert (nodes["data"]["drv"], nodes["data"]["ro"]) == (form, False)
    if interface != "none":
        assert model_of(command_line, "disk-data") == DISKS[interface]


@pytest.mark.parametrize("interface", ["virtio", "scsi", "none"])
def test_microvm_takes_disks_without_pci(interface: Interface, bench: Bench) -> None:
    drive = Drive("data", bench.disk(), interface=interface)
    assert status(bench, bench.build(bench.inputs(drive), machine="microvm")) == "prelaunch"


@pytest.mark.parametrize("interface", ["virtio", "scsi", "nvme", "none"])
def test_a_read_only_image_is_opened_read_only(interface: Interface, bench: Bench) -> None:
    disk = bench.disk("boot.img", "raw", "1M")
    disk.chmod(0o400)
    drive = Drive("boot", disk, "raw", interface, readonly=True)
    with running(bench, bench.build(bench.inputs(drive))) as execute:
        nodes = {one["node-name"]: one for one in execute("query-named-block-nodes")}
    assert nodes["boot"]["ro"] is True


@pytest.mark.parametrize("interface", ["ide", "sata"])
def test_a_read_only_ide_disk_is_refused_with_what_works(interface: Interface, bench: Bench) -> None:
    drive = Drive("boot", bench.disk(), interface=interface, readonly=True)
    with pytest.raises(ConfigError, match=f"storage 'boot' is read-only, which {interface} disks cannot be"):
        bench.build(bench.inputs(drive))


@pytest.mark.parametrize("machine", ["q35", "pc", "microvm", "microvm,pcie=on", "isapc"])
@pytest.mark.parametrize("full", [True, False])
def test_a_cd_drive_is_taken_with_and_without_a_disc(full: bool, machine: str, bench: Bench) -> None:
    disc = bench.disk("disc.iso", "raw", "1M") if full else None
    drive = Drive("cd", disc, "raw", "ide", media="cdrom")
    with running(bench, bench.build(bench.inputs(drive), machine=machine)) as execute:
        (found,) = [one for one in execute("query-block") if "disk-cd" in str(one.get("qdev"))]
    assert found["removable"] is True
    assert ("inserted" in found) is full
    if full:
        assert found["inserted"]["ro"] is True, "nothing writes a CD"


@pytest.mark.parametrize("interface", ["sata", "scsi", "virtio"])
def test_a_cd_drive_goes_where_it_is_wanted(interface: Interface, bench: Bench) -> None:
    drive = Drive("cd", bench.disk("disc.iso", "raw", "1M"), "raw", interface, media="cdrom")
    command_line = bench.build(bench.inputs(drive))
    assert model_of(command_line, "disk-cd") == ("ide-cd" if interface == "sata" else "scsi-cd")
    assert status(bench, command_line) == "prelaunch"


def test_there_are_no_cd_drives_on_nvme(bench: Bench) -> None:
    drive = Drive("cd", None, "raw", "nvme", media="cdrom")
    with pytest.raises(ConfigError, match="storage 'cd' wants interface nvme"):
        bench.build(bench.inputs(drive))


@pytest.mark.parametrize(
    ("machine", "interface", "reason"),
    [
        ("isapc", "virtio", "has no bus for virtio devices"),
        ("isapc", "scsi", "has no bus for virtio devices"),
        ("isapc", "sata", "has no PCI bus for a SATA controller"),
        ("isapc", "nvme", "has no PCI bus"),
        ("microvm", "ide", "has no IDE bus"),
        ("microvm", "sata", "has no PCI bus"),
        ("microvm", "nvme", "has no PCI bus"),
    ],
)
def test_an_interface_the_machine_lacks_is_refused(
    machine: str, interface: Interface, reason: str, bench: Bench
) -> None:
    drive = Drive("data", bench.disk(), interface=interface)
    with pytest.raises(
        ConfigError, match=f"'data' wants interface {interface}.*{machine} {reason}"
    ) as caught:
        bench.build(bench.inputs(drive), machine=machine)
    assert caught.value.hint, "the hint says what to take instead"


@pytest.mark.parametrize(
    ("machine", "interface", "count"),
    [("q35", "ide", 6), ("pc", "ide", 4), ("q35", "sata", 13), ("q35", "scsi", 40), ("q35", "virtio", 16)],
)
def test_many_disks_fit(machine: str, interface: Interface, count: int, bench: Bench) -> None:
    drives = [Drive(f"d{n}", bench.disk(f"d{n}", size="1M"), interface=interface) for n in range(count)]
    with running(bench, bench.build(bench.inputs(*drives), machine=machine, network=["user"])) as execute:
        devices = [one for one in execute("query-block") if "disk-d" in str(one.get("qdev"))]
    assert len(devices) == count


@pytest.mark.parametrize(("machine", "places"), [("q35", 6), ("pc", 4)])
def test_one_ide_disk_too_many_is_refused(machine: str, places: int, bench: Bench) -> None:
    drives = [Drive(f"d{n}", bench.disk(f"d{n}", size="1M"), interface="ide") for n in range(places + 1)]
    with pytest.raises(ConfigError, match=f"'d{places}' wants .* has only {places} IDE places"):
        bench.build(bench.inputs(*drives), machine=machine)


def test_the_firmware_boots_drives_in_the_order_they_are_given(bench: Bench) -> None:
    drives = [
        Drive("root", bench.disk("a")),
        Drive("extra", bench.disk("b"), interface="none"),
        Drive("cd", bench.disk("c", "raw"), "raw", "ide", media="cdrom"),
    ]
    lines = device_lines(bench.build(bench.inputs(*drives)))
    order = [line.partition("id=disk-")[2].partition(",")[0] for line in lines if "bootindex" in line]
    assert order == ["root", "cd"]


NASTY = [
    "a,b.img",
    "a=b.img",
    "a b.img",
    "a\nb.img",
    "a,,b.img",
    "-dash.img",
    "a%20b.img",
    "ä'\"$`.img",
    ",id=x",
    "json:{}",
]


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("interface", ["virtio", "none"])
def test_any_file_name_reaches_qemu_as_it_is(name: str, interface: Interface, bench: Bench) -> None:
    disk = bench.directory / name
    disk.write_bytes(bytes(1 << 16))
    drive = Drive("data", disk, "raw", interface)
    with running(bench, bench.build(bench.inputs(drive))) as execute:
        nodes = {one["node-name"]: one for one in execute("query-named-block-nodes")}
    assert nodes["data"]["image"]["filename"] == str(disk)


@pytest.mark.parametrize("name", ["root", "Root-2", "a.b_c-d", "x" * 31])
def test_a_drive_keeps_its_name_as_node(name: str) -> None:
    assert node_name(name) == name


def test_names_that_qemu_refuses_get_a_node_of_their_own(bench: Bench) -> None:
    names = ["2nd", "_x", "x" * 32, "x" * 64, "a b", "a_b!", "a_b?", "ä"]
    nodes = [node_name(name) for name in names]
    assert len(set(nodes)) == len(names), f"no two drives share a node: {nodes}"
    drives = [Drive(name, bench.disk(f"d{n}", size="1M")) for n, name in enumerate(names)]
    with running(bench, bench.build(bench.inputs(*drives))) as execute:
        found = {one["node-name"] for one in execute("query-named-block-nodes")}
    assert set(nodes) <= found


def test_a_missing_file_is_qemus_to_tell(bench: Bench) -> None:
    drive = Drive("data", Path("/nonexistent/x.qcow2"))
    command_line = bench.build(bench.inputs(drive))
    with pytest.raises(AssertionError, match=r"Could not open '/nonexistent/x.qcow2'"):
        status(bench, command_line)


def test_two_drives_of_one_name_are_refused(bench: Bench) -> None:
    drives = (Drive("root", bench.disk("a")), Drive("root", bench.disk("b")))
    with pytest.raises(ConfigError, match="two drives are called 'root'") as caught:
        bench.build(bench.inputs(*drives))
    assert "`image:`" in str(caught.value.hint)
