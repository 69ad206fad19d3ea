"""Raw QEMU arguments in all of maqet's forms."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_maqet.config import load_config
from pytest_maqet.errors import ConfigError


def arguments(tmp_path: Path, entry: str) -> list[tuple[str, str | None]]:
    path = tmp_path / "m.yaml"
    path.write_text(f"vms:\n  web:\n    arguments:\n      - {entry}\n")
    return [tuple(argument) for argument in load_config([path], environ={}).vms["web"].arguments]


@pytest.mark.parametrize(
    ("entry", "option", "value"),
    [
        ("foo", "foo", None),
        ("-foo", "foo", None),
        ("--no-reboot", "no-reboot", None),
        ("{foo: null}", "foo", None),
        ("{foo: }", "foo", None),
        ("{foo: bar}", "foo", "bar"),
        ("{foo: 'bar,baz=1'}", "foo", "bar,baz=1"),
        ("{foo: 42}", "foo", "42"),
        ("{foo: on}", "foo", "on"),
        ("{foo: 0x10}", "foo", "0x10"),
        ("{foo: 1:30}", "foo", "1:30"),
        ("{foo: 1.50}", "foo", "1.50"),
        ("{foo: {bar: 42, baz: on}}", "foo", "bar=42,baz=on"),
        ("{foo: {bar: off, baz: no}}", "foo", "bar=off,baz=no"),
        ("{display: gtk, zoom-to-fit: on}", "display", "gtk,zoom-to-fit=on"),
        ("{display: {gtk: null, zoom-to-fit: on}}", "display", "gtk,zoom-to-fit=on"),
        ("{display: {gtk: }, zoom-to-fit: on}", "display", "gtk,zoom-to-fit=on"),
        ("{device: {virtio-rng-pci: null, id: r0}}", "device", "virtio-rng-pci,id=r0"),
        ("{foo: null, bar: 1}", "foo", "bar=1"),
        (
            "{blockdev: {driver: qcow2, file: {driver: nbd, path: p}}}",
            "blockdev",
            "driver=qcow2,file.driver=nbd,file.path=p",
        ),
        ("{blockdev: {server: [{host: a}, {host: b}]}}", "blockdev", "server.0.host=a,server.1.host=b"),
        ("{name: {guest: 'a, b', x=y: 'c=d'}}", "name", "guest=a,, b,x=y=c=d"),
        ("{append: 'console=ttyS0, quiet'}", "append", "console=ttyS0, quiet"),
        ("{foo: ''}", "foo", ""),
        ("{foo: {bar: ''}}", "foo", "bar="),
    ],
)
def test_forms(tmp_path: Path, entry: str, option: str, value: str | None) -> None:
    assert arguments(tmp_path, entry) == [(option, value)], entry


def test_paths(tmp_path: Path) -> None:
    (tmp_path / "there.img").touch()
    assert arguments(tmp_path, "{kernel: there.img}") == [("kernel", str(tmp_path / "there.img"))]
    assert arguments(tmp_path, "{bios: bios-microvm.bin}") == [("bios", "bios-microvm.bin")], (
        "QEMU has that one"
    )
    assert arguments(tmp_path, "{bios: ./not-there}") == [("bios", str(tmp_path / "not-there"))]
    assert arguments(tmp_path, "{drive: {file: there.img, if: none}}") == [
        ("drive", f"file={tmp_path}/there.img,if=none")
    ]
    assert arguments(tmp_path, "{blockdev: {file: {filename: ../x}}}") == [
        ("blockdev", f"file.filename={tmp_path.parent}/x")
    ]
    assert arguments(tmp_path, "{drive: {file: 'nbd:host:1'}}") == [("drive", "file=nbd:host:1")]


def test_commas_in_paths_are_doubled(tmp_path: Path) -> None:
    odd = tmp_path / "a,b=c"
    odd.mkdir()
    assert arguments(odd, "{drive: {file: ./x}}") == [("drive", f"file={tmp_path}/a,,b=c/x")]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("foo bar", "vms.web.arguments[0]: found 'foo bar', which is no name of an option; write {foo: bar}"),
        ("'-m 512'", "write {m: 512}"),
        ("''", "found '', which is no name of an option"),
        ("[a]", "vms.web.arguments[0]: found ['a']; allowed are a flag such as no-reboot"),
        ("{}", "vms.web.arguments[0]: found {}"),
        ("", "vms.web.arguments[0]: found None"),
        (
            "{foo: [a, b]}",
            "m.yaml:4:15: vms.web.arguments[0].foo: found ['a', 'b']; write one entry for each time",
        ),
        ("{'a b': c}", "found 'a b', which is no name of an option"),
        ("{display: gtk, zoom: [a]}", ""),
    ],
)
def test_refused(tmp_path: Path, entry: str, message: str) -> None:
    if not message:
        assert arguments(tmp_path, entry) == [("display", "gtk,zoom.0=a")], (
            "QEMU's spelling of a list in a value"
        )
        return
    with pytest.raises(ConfigError) as caught:
        arguments(tmp_path, entry)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("S", "use `vm.pause()`"),
        ("daemonize", "QEMU must stay a child of its keeper"),
        ("pidfile", "`vm.pid` is the process id"),
        ("nographic", "say `display: none`, which is the default"),
        ("incoming", "a VM's saved state is loaded by the plugin"),
        ("preconfig", "the machine would wait for commands"),
        ("readconfig", "say its content under `arguments:`"),
        ("writeconfig", "QEMU would write the file and not run"),
        ("enable-kvm", "say `accel: kvm`"),
        ("h", "QEMU would print it and not run"),
        ("help", "QEMU would print it and not run"),
        ("version", "QEMU would print it and not run"),
    ],
)
@pytest.mark.parametrize("form", ["-{}", "{{{}: x}}"], ids=["flag", "mapping"])
def test_what_takes_the_vm_out_of_our_hands_is_refused(
    tmp_path: Path, option: str, instead: str, form: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        arguments(tmp_path, form.format(option))
    (line,) = caught.value.problems
    said = f"m.yaml:4:9: vms.web.arguments[0]: the raw argument '-{option}' cannot be used: "
    assert said in line, line
    assert instead in line, line


def test_no_list(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("vms: {web: {arguments: {foo: bar}}}")
    with pytest.raises(
        ConfigError, match=r"m.yaml:1:24: vms.web.arguments: found .*; allowed is a list of arguments"
    ):
        load_config([path], environ={})


def test_from_python(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("vms: {web: {}}")
    web = load_config([path], environ={}).vm(
        "web", {"arguments": ["foo", {"a": True, "b": False, "c": 1}, {"d": {"e": None}}]}, source="marker"
    )
    assert [tuple(one) for one in web.arguments] == [("foo", None), ("a", "on,b=off,c=1"), ("d", "e")]
