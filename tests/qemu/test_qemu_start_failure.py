"""A start that failed is explained: what QEMU said, what was asked of it, and what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from qemu_start import Bench, refusal, running

from pytest_maqet.errors import StartError
from pytest_maqet.qemu.inputs import Drive
from pytest_maqet.qemu.start_failure import explain
from pytest_maqet.runs.exit_status import Exit


def explained(bench: Bench, *drives: Drive, **config: Any) -> StartError:
    """What is said when QEMU refuses a VM."""
    command_line = bench.build(bench.inputs(*drives), **config)
    code, said = refusal(command_line)
    return explain(command_line, Exit(code, None, f"exited with status {code}"), said, "")


@pytest.mark.parametrize(
    ("argument", "said", "hint"),
    [
        (("devise", "x"), "-devise: invalid option", "has no option -devise; nearest: device"),
        (("machine", "accel=kvm"), "options are incompatible", "two options exclude each other"),
        (("device", "virtio-blk-pcy"), "not a valid device model", "nearest: virtio-blk-pci"),
        (("device", "virtio-rng-pci,nonesuch=1"), "nonesuch' not found", "-device virtio-rng-pci,help"),
        (("device", "usb-tablet"), "No 'usb-bus' bus found", "no such bus"),
        (("device", "virtio-rng-pci,id=rng"), "uplicate", "that name is used twice"),
        (("cpu", "i8080"), "unable to find CPU model", "-cpu help"),
        (("smp", "9999"), "max CPUs", "fewer processors"),
        (("display", "gtk"), "gtk", "qemu-system-gui"),
        (("bios", "nonesuch.bin"), "could not load PC BIOS", "firmware file is missing"),
        (("m", "9000T"), "", "less `memory:`"),
        (("drive", "file=/nonexistent/x,if=virtio,format=raw"), "No such file", "does not exist"),
        (
            ("netdev", "user,id=n,hostfwd=tcp:127.0.0.1:70000-:22"),
            "host forwarding rule",
            "leave the host port",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_what_qemu_refuses_comes_with_a_hint(
    argument: tuple[str, str], said: str, hint: str, bench: Bench
) -> None:
    error = explained(bench, arguments=[argument])
    assert error.message.startswith(
        "VM 'web': QEMU did not start: exited with status 1; it said this:\n  qemu"
    )
    assert said in error.message, "QEMU's own words are there"
    assert f"-{argument[0]}" in error.message, "and the command line"
    assert hint in str(error.hint), f"{error.hint!r}"


def test_too_many_cards_for_the_bus(bench: Bench) -> None:
    error = explained(bench, network=["user"] * 33)
    assert "`interface: scsi`" in str(error.hint), error.message.splitlines()[1]


def test_a_boot_index_taken_twice(bench: Bench) -> None:
    drive = Drive("root", bench.disk())
    other = ("device", "virtio-net-pci,bootindex=1")
    error = explained(bench, drive, arguments=[other])
    assert "boot indexes 1, 2" in str(error.hint), error.message


def test_an_image_that_another_vm_writes(bench: Bench, tmp_path: Path) -> None:
    disk = bench.disk()
    with running(bench, bench.build(bench.inputs(Drive("root", disk)))):
        (tmp_path / "second").mkdir()
        second = Bench(tmp_path / "second", bench.caps)
        error = explained(second, Drive("root", disk))
        second.close()
    assert 'Failed to get "write" lock' in error.message
    assert "another process" in str(error.hint)


def test_an_image_that_is_none(bench: Bench) -> None:
    path = bench.directory / "text.qcow2"
    path.write_text("this is no disk")
    error = explained(bench, Drive("root", path))
    assert "qemu-img check" in str(error.hint), error.message


def test_an_image_that_is_missing(bench: Bench) -> None:
    error = explained(bench, Drive("root", bench.directory / "gone.qcow2"))
    assert "gone.qcow2" in error.message
    assert "does not exist" in str(error.hint)


def test_an_unknown_machine_names_the_nearest(bench: Bench) -> None:
    command_line = bench.build()
    text = command_line.arguments[command_line.arguments.index("-machine") + 1]
    wrong = replace(
        command_line, arguments=tuple("pc-q35-7.22" if one == text else one for one in command_line.arguments)
    )
    code, said = refusal(wrong)
    error = explain(wrong, Exit(code, None, "exited with status 1"), said, "")
    assert "no machine type 'pc-q35-7.22'; nearest: pc-q35-7.2" in str(error.hint)


@pytest.mark.parametrize(
    ("exit_", "hint"),
    [
        (Exit(None, 7, "killed by signal 7 (SIGBUS)"), "/dev/shm"),
        (Exit(None, 9, "killed by signal 9 (SIGKILL)"), "dmesg"),
        (Exit(0, None, "exited with status 0"), "help"),
    ],
)
def test_a_silent_end_is_explained_by_its_status(exit_: Exit, hint: str, bench: Bench) -> None:
    error = explain(bench.build(), exit_, "", "")
    assert error.message.startswith(f"VM 'web': QEMU did not start: {exit_.reason}; it said nothing\n")
    assert hint in str(error.hint)


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("Could not access KVM kernel module: Permission denied", "usermod -aG kvm"),
        ("Could not access KVM kernel module: No such file or directory", "--maqet-accel=auto"),
        ("error: failed to set MSR 0x10a to 0x69", "--maqet-accel=auto"),
        ("cannot set up guest memory 'pc.ram': Cannot allocate memory", "less `memory:`"),
        ('failed to find romfile "efi-virtio.rom"', "ipxe-qemu"),
        ("error while loading shared libraries: libfoo.so.1", "install it again"),
    ],
)
def test_causes_this_host_does_not_have_are_known_by_qemus_words(said: str, hint: str, bench: Bench) -> None:
    error = explain(bench.build(), Exit(1, None, "exited with status 1"), f"qemu-system-x86_64: {said}\n", "")
    assert hint in str(error.hint)


def test_words_that_are_not_known_get_no_hint(bench: Bench) -> None:
    error = explain(bench.build(), Exit(1, None, "exited with status 1"), "qemu: the moon is full\n", "")
    assert error.hint is None
    assert "the moon is full" in str(error)


def test_only_the_end_of_long_output_is_told(bench: Bench) -> None:
    lines = "".join(f"line {n}\n\n" for n in range(1000))
    error = explain(bench.build(), Exit(1, None, "exited with status 1"), lines, lines)
    assert "line 999" in error.message
    assert "line 900" not in error.message
    assert "the guest's console ended with:" in error.message


def test_the_command_line_can_be_pasted(bench: Bench) -> None:
    command_line = bench.build()
    error = explain(command_line, Exit(1, None, "exited with status 1"), "", "")
    assert f"the command line was:\n  {command_line.binary} \\\n    -name guest=web \\\n" in error.message


def test_nothing_the_guest_wrote_acts_on_the_terminal(bench: Bench) -> None:
    console = "\x1b[2J\x1b]0;title\x07\x9b31mred\x1b[0m\x00 end"
    error = explain(bench.build(), Exit(1, None, "exited with status 1"), console, console)
    said = str(error).replace("\n", "")
    assert said.isprintable(), f"control characters are gone from {said!r}"
    assert "end" in said
