"""Every command line that is built is taken by the real QEMU, on every kind of machine."""

from __future__ import annotations

import re
import shlex

import pytest
from qemu_start import Bench, device_lines, model_of, only, running, status

from pytest_maqet.config import VmConfig
from pytest_maqet.errors import ConfigError, StartError
from pytest_maqet.qemu.command_line import build
from pytest_maqet.qemu.inputs import Drive

MACHINES = [None, "q35", "pc", "pc-q35-6.2", "microvm", "microvm,pcie=on", "isapc", "q35,vmport=off"]


@pytest.mark.parametrize("machine", MACHINES)
def test_a_vm_with_everything_usual_starts_on_every_kind_of_machine(
    machine: str | None, bench: Bench
) -> None:
    command_line = bench.build(machine=machine, network=["user"])
    assert status(bench, command_line) == "prelaunch", "the VM is paused before its first instruction"


@pytest.mark.parametrize("machine", ["q35", "pc", "microvm"])
def test_a_booting_image_gets_a_screen_only_where_the_machine_has_one(machine: str, bench: Bench) -> None:
    drive = Drive("root", bench.disk())
    command_line = bench.build(bench.inputs(drive), machine=machine)
    assert only(command_line, "vga") == ("none" if machine == "microvm" else "std")
    assert status(bench, command_line) == "prelaunch"


def test_a_directly_booted_kernel_gets_no_screen_and_no_boot_order(bench: Bench) -> None:
    drive = Drive("root", bench.disk())
    kernel = bench.directory / "kernel"
    command_line = bench.build(bench.inputs(drive, kernel=kernel, append="console=ttyS0 a=b,c  d"))
    assert only(command_line, "vga") == "none"
    assert only(command_line, "append") == "console=ttyS0 a=b,c  d", "the kernel's words are not touched"
    assert "bootindex" not in str(command_line), "the kernel boots, so no drive may come before it"


def test_a_builtin_guest_gets_no_screen_unless_asked(bench: Bench) -> None:
    drive = Drive("boot", bench.disk("boot.img", "raw"), "raw", readonly=True)
    assert only(bench.build(bench.inputs(drive), image="builtin:nano"), "vga") == "none"
    assert only(bench.build(bench.inputs(drive), image="builtin:nano", vga="std"), "vga") == "std"


def test_the_machine_type_is_the_versioned_one(bench: Bench) -> None:
    text = only(bench.build(machine="q35"), "machine")
    assert re.fullmatch(r"pc-q35-\d+\.\d+", text), f"{text} would become another machine after an upgrade"


def test_q35_is_the_machine_where_none_is_named(bench: Bench) -> None:
    assert only(bench.build(), "machine").startswith("pc-q35-")


def test_options_of_the_machine_are_kept(bench: Bench) -> None:
    assert only(bench.build(machine="q35,vmport=off"), "machine").endswith(",vmport=off")


@pytest.mark.parametrize(
    ("said", "nearest"), [("q36", "q35"), ("mikrovm", "microvm"), ("pc-q35-99", "pc-q35-")]
)
def test_an_unknown_machine_names_the_nearest(said: str, nearest: str, bench: Bench) -> None:
    with pytest.raises(StartError, match=f"machine type '{said}'") as caught:
        bench.build(machine=said)
    assert nearest in str(caught.value.hint), "the hint names what was probably meant"
    assert "web" in str(caught.value), "the VM is named"


def test_two_monitors_answer_and_know_the_vm(bench: Bench) -> None:
    inputs = bench.inputs()
    command_line = bench.build(inputs, name="web-2")
    with running(bench, command_line) as execute:
        assert execute("query-name") == {"name": "web-2"}
        monitors = {one["label"] for one in execute("query-chardev")}
    assert {"qmp0", "qmp1", "serial0", "agent", "wake"} <= monitors


def test_the_first_serial_port_logs_from_the_first_byte(bench: Bench) -> None:
    inputs = bench.inputs(ports=2)
    command_line = bench.build(inputs)
    assert status(bench, command_line) == "prelaunch"
    for port in inputs.serial:
        assert port.logfile.exists(), f"QEMU made {port.logfile}, comma and space and all"


@pytest.mark.parametrize(("machine", "ports"), [("q35", 6), ("pc", 6), ("microvm", 2), ("isapc", 4)])
def test_several_serial_ports_are_taken(machine: str, ports: int, bench: Bench) -> None:
    command_line = bench.build(bench.inputs(ports=ports), machine=machine)
    assert status(bench, command_line) == "prelaunch"


def test_too_many_serial_ports_are_refused_with_the_port(bench: Bench) -> None:
    with pytest.raises(
        ConfigError, match=r"machine isapc has no place for serial port 'p4' \(5 are wanted\)"
    ):
        bench.build(bench.inputs(ports=5), machine="isapc")


def test_a_forwarded_port_gets_a_free_host_port(bench: Bench) -> None:
    network = [{"user": {"forward": {"ssh": 22, "http": 80}}}, "user"]
    command_line = bench.build(network=network)
    with running(bench, command_line) as execute:
        table = execute("human-monitor-command", **{"command-line": "info usernet"})
    found = {
        int(guest): int(host)
        for host, guest in re.findall(r"HOST_FORWARD\].* 127\.0\.0\.1 +(\d+) +\S+ +(\d+)", table)
    }
    assert set(found) == {22, 80}, f"both guest ports are forwarded in {table}"
    assert all(port >= 1024 for port in found.values()), f"QEMU picked free ports: {found}"


def test_a_network_card_has_boot_code_only_where_nothing_else_boots(bench: Bench) -> None:
    with_disk = bench.build(bench.inputs(Drive("root", bench.disk())), network=["user"])
    assert "romfile=" in str(with_disk), "no ROM package is needed where a disk boots"
    assert "romfile=" not in str(bench.build(network=["user"]))


def test_spare_root_ports_are_there_on_pci_express(bench: Bench) -> None:
    ports = [line for line in device_lines(bench.build()) if line.startswith("pcie-root-port")]
    assert [re.search(r"id=(\w+)", line)[1] for line in ports] == [f"hotplug{n}" for n in range(4)]  # type: ignore[index]
    assert "pcie-root-port" not in str(bench.build(machine="pc"))


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (
            "q35",
            {
                "panic": "pvpanic",
                "rng": "virtio-rng-pci",
                "generation": "vmgenid",
                "ports": "virtio-serial-pci",
            },
        ),
        ("microvm", {"panic": "pvpanic", "rng": "virtio-rng-device", "ports": "virtio-serial-device"}),
        ("isapc", {"panic": "pvpanic"}),
    ],
)
def test_every_machine_has_the_extras_it_takes(machine: str, expected: dict[str, str], bench: Bench) -> None:
    command_line = bench.build(machine=machine)
    assert {name: model_of(command_line, name) for name in expected} == expected
    assert only(command_line, "action") == "panic=pause,shutdown=pause"


def test_no_agent_port_where_no_agent_is_wanted(bench: Bench) -> None:
    without = str(bench.build(bench.inputs(agent=False)))
    assert "guest_agent" not in without
    assert "wake" not in without


def test_processors_memory_and_clock(bench: Bench) -> None:
    command_line = bench.build(
        cpu={"model": "qemu64", "count": 2}, memory="300M", rtc={"base": "2020-02-03T04:05:06", "clock": "vm"}
    )
    with running(bench, command_line) as execute:
        assert len(execute("query-cpus-fast")) == 2
        assert execute("query-memory-size-summary")["base-memory"] == 300 << 20
    assert only(command_line, "cpu") == "qemu64"
    assert only(command_line, "rtc") == "base=2020-02-03T04:05:06,clock=vm"


def test_memory_need_not_be_whole_mebibytes(bench: Bench) -> None:
    with running(bench, bench.build(memory=(64 << 20) + 8192)) as execute:
        assert execute("query-memory-size-summary")["base-memory"] == (64 << 20) + 8192


@pytest.mark.parametrize(("accelerator", "model"), [("kvm", "host"), ("hvf", "host"), ("tcg", "max")])
def test_the_processor_is_the_best_one_for_the_accelerator(
    accelerator: str, model: str, bench: Bench
) -> None:
    command_line = build(VmConfig(name="web"), bench.caps, accelerator, bench.inputs())
    assert (only(command_line, "accel"), only(command_line, "cpu")) == (accelerator, model)


def test_a_firmware_file_is_taken_and_a_missing_one_is_named_by_qemu(bench: Bench) -> None:
    assert only(bench.build(firmware="/usr/share/seabios/bios-256k.bin"), "bios").endswith("bios-256k.bin")
    assert status(bench, bench.build(firmware="/usr/share/seabios/bios-256k.bin")) == "prelaunch"


def test_an_incoming_vm_waits_for_its_state(bench: Bench) -> None:
    assert status(bench, bench.build(bench.inputs(incoming=True))) == "inmigrate"


def test_descriptors_are_listed_in_full(bench: Bench) -> None:
    inputs = bench.inputs(ports=2)
    command_line = bench.build(inputs)
    expected = (*inputs.monitors, *(port.fd for port in inputs.serial))
    assert command_line.fds == (*expected, inputs.agent, inputs.wake, inputs.exec)


def test_the_text_of_a_command_line_can_be_pasted(bench: Bench) -> None:
    command_line = bench.build()
    assert tuple(shlex.split(str(command_line))) == command_line.argv
    assert tuple(shlex.split(command_line.lines().replace("\\\n", ""))) == command_line.argv
    assert all(line.lstrip().startswith(("-", "/")) for line in command_line.lines().splitlines())


def test_the_default_display_can_be_named(bench: Bench) -> None:
    assert only(bench.build(), "display") == "none"
    assert status(bench, bench.build(display="none", vga="std")) == "prelaunch"


@pytest.mark.parametrize("name", ["linux_.-", "a" * 64])
def test_every_name_a_vm_may_have_is_taken(name: str, bench: Bench) -> None:
    with running(bench, bench.build(name=name)) as execute:
        assert execute("query-name") == {"name": name}
