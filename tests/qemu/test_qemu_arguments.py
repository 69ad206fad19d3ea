"""The user's raw arguments over ours: replaced, merged, appended, refused."""

from __future__ import annotations

import pytest
from qemu_start import Bench, device_lines, model_of, only, refusal, running, status

from pytest_maqet.errors import ConfigError
from pytest_maqet.qemu.inputs import Drive


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (("cpu", "qemu64"), ("cpu", "qemu64")),
        (("display", "vnc=none"), ("display", "vnc=none")),
        (("vga", "cirrus"), ("vga", "cirrus")),
        (("nodefaults", None), None),
        (("smp", "2"), ("smp", "cpus=2")),
        (("smp", "sockets=1,cores=1"), ("smp", "cpus=1,sockets=1,cores=1")),
        (("m", "1G"), ("m", "size=1G")),
        (("m", "slots=2,maxmem=4G"), ("m", "size=256M,slots=2,maxmem=4G")),
        (("action", "panic=none"), ("action", "panic=none,shutdown=pause")),
        (("name", "debug-threads=on"), ("name", "guest=web,debug-threads=on")),
        (("accel", "tcg,thread=single"), ("accel", "accel=tcg,thread=single")),
        (("accel", "thread=single"), ("accel", "accel=tcg,thread=single")),
        (("boot", "menu=on"), ("boot", "menu=on")),
        (("uuid", "12345678-1234-1234-1234-123456789abc"), ("uuid", "12345678-1234-1234-1234-123456789abc")),
    ],
)
def test_what_qemu_takes_once_replaces_or_joins_ours(
    argument: tuple[str, str | None], expected: tuple[str, str] | None, bench: Bench
) -> None:
    command_line = bench.build(arguments=[argument])
    if expected is None:
        assert command_line.arguments.count(f"-{argument[0]}") == 1
    else:
        assert only(command_line, expected[0]) == expected[1]
    if "vnc" not in str(expected):
        assert status(bench, command_line) == "prelaunch"


def test_what_qemu_takes_often_is_appended(bench: Bench) -> None:
    arguments = [
        ("device", "usb-ehci,id=usb"),
        ("device", "usb-tablet,bus=usb.0"),
        ("global", "isa-fdc.fdtypeA=none"),
        ("object", "rng-builtin,id=r0"),
        ("chardev", "null,id=n0"),
        ("serial", "none"),
        ("qmp", f"unix:{bench.directory}/more.sock,server=on,wait=off"),
    ]
    command_line = bench.build(arguments=arguments)
    for name, value in arguments:
        assert value in device_lines(command_line, name), f"-{name} {value} is not in {command_line.lines()}"
    assert model_of(command_line, "rng") == "virtio-rng-pci", "ours are still there"
    assert status(bench, command_line) == "prelaunch"


@pytest.mark.parametrize("option", ["machine", "M"])
def test_the_machine_type_may_be_said_raw(option: str, bench: Bench) -> None:
    command_line = bench.build(arguments=[(option, "pc"), (option, "vmport=off")])
    assert only(command_line, "machine").startswith("pc-i440fx-")
    assert only(command_line, "machine").endswith(",vmport=off")
    assert "pcie-root-port" not in str(command_line), (
        "the devices are those of the machine that was said last"
    )
    assert status(bench, command_line) == "prelaunch"


def test_an_order_to_boot_from_takes_ours_away(bench: Bench) -> None:
    drive = Drive("root", bench.disk())
    command_line = bench.build(bench.inputs(drive), arguments=[("boot", "order=n")])
    assert "bootindex" not in str(command_line)


def test_another_accelerator_said_raw_is_refused(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="'-accel' names kvm, but tcg was chosen") as caught:
        bench.build(arguments=[("accel", "kvm")])
    assert "accel: kvm" in str(caught.value.hint)


def test_a_comma_in_a_raw_value_stays_doubled(bench: Bench) -> None:
    command_line = bench.build(arguments=[("name", "guest=a,,b")])
    assert only(command_line, "name") == "guest=a,,b"
    with running(bench, command_line) as execute:
        assert execute("query-name") == {"name": "a,b"}


def test_two_options_that_exclude_each_other_are_qemus_to_refuse(bench: Bench) -> None:
    command_line = bench.build(arguments=[("machine", "accel=tcg")])
    code, said = refusal(command_line)
    assert code == 1
    assert 'The -accel and "-machine accel=" options are incompatible' in said
