"""`{fixture: NAME}` as any value: open until its value is known, and validated like YAML then."""

# ruff: noqa: E501 - messages and YAML stand as users see them
from __future__ import annotations

from pathlib import Path

import pytest

from pytest_maqet.config import Config, ImagePath, load_config
from pytest_maqet.errors import ConfigError

TEXT = """
vms:
  web:
    image: {fixture: built_image}
    memory: 1G
    cpu: {count: {fixture: cpus}}
    storage:
      - name: data
        size: {fixture: size}
      - name: again
        size: {fixture: size}
    arguments:
      - {device: {virtio-rng-pci: null, id: {fixture: rng}}}
      - no-reboot
  plain: {fixture: other}
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "m.yaml"
    path.write_text(TEXT)
    return load_config([path], environ={})


def test_names(config: Config) -> None:
    assert config.fixture_names("web") == ("built_image", "cpus", "size", "rng")
    assert config.fixture_names("plain") == (), "`fixture:` of a VM is the name of its own fixture"
    assert config.vms["plain"].fixture == "other"
    assert config.fixture_names("web", {"image": "x", "cpu.count": 1}) == ("size", "rng")
    assert config.fixture_names("plain", {"memory": {"fixture": "mem"}}) == ("mem",)


def test_open_values_have_their_defaults(config: Config) -> None:
    web = config.vms["web"]
    assert (web.image, web.memory, web.cpu.count, web.storage) == (None, 1 << 30, 1, ())


def test_values(config: Config, tmp_path: Path) -> None:
    values = {"built_image": tmp_path / "x.qcow2", "cpus": 3, "size": "2G", "rng": "r0"}
    web = config.vm("web", {"memory": "2G"}, fixture_values=values, source="test_x")
    assert web.image == ImagePath(path=tmp_path / "x.qcow2")
    assert (web.cpu.count, web.memory, [disk.size for disk in web.storage]) == (3, 2 << 30, [2 << 30] * 2)
    assert [tuple(argument) for argument in web.arguments] == [
        ("device", "virtio-rng-pci,id=r0"),
        ("no-reboot", None),
    ]
    assert web != config.vms["web"]


def test_value_in_an_override(config: Config) -> None:
    vm = config.vm("plain", {"memory": {"fixture": "mem"}}, fixture_values={"mem": "2G"}, source="marker")
    assert vm.memory == 2 << 30


def test_wrong_value_names_the_fixture(config: Config) -> None:
    values = {"built_image": 5, "cpus": "many", "size": object(), "rng": ["x"]}
    with pytest.raises(ConfigError) as caught:
        config.vm("web", fixture_values={**values, "rng": object()})
    said = str(caught.value)
    assert "fixture 'built_image': vms.web.image: found 5 (int); allowed are a path" in said
    assert "fixture 'cpus': vms.web.cpu.count: found 'many'; allowed is a whole number" in said
    assert "fixture 'size': vms.web.storage[0].size: found <object" in said
    assert "fixture 'rng': vms.web.arguments[0].device.id: found <object" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vms: {web: {image: {fixture: a}, memory: bad}}", "vms.web.memory: found 'bad'"),
        (
            "vms: {web: {storage: [{name: a, size: {fixture: a}, type: bad}]}}",
            "vms.web.storage[0].type: found 'bad'",
        ),
        ("vms: {web: {memroy: {fixture: a}}}", "vms.web.memroy: unknown key"),
        ("vms: {web: {memory: {fixtrue: a}}}", "vms.web.memory: found a mapping"),
        ("vms: {web: {arguments: [{a: {fixture: a}}, [b]]}}", "vms.web.arguments[1]: found ['b']"),
    ],
)
def test_what_is_not_open_is_validated(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config([path], environ={})
    assert message in str(caught.value)


@pytest.mark.parametrize("key", ["scope", "fixture"])
def test_what_must_be_known_before(tmp_path: Path, key: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(f"vms: {{web: {{{key}: {{fixture: a}}}}}}")
    with pytest.raises(
        ConfigError, match=rf"vms.web.{key}: a fixture cannot say this; it is settled before any"
    ):
        load_config([path], environ={})


@pytest.mark.parametrize("key", ["image", "memory", "cpu", "storage", "network", "guest", "ready", "fail_on", "serial",
    "timeouts", "arguments", "kernel", "rtc", "firmware"])  # fmt: skip
def test_any_key_may_be_open(tmp_path: Path, key: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(f"vms: {{web: {{{key}: {{fixture: a}}}}}}")
    config = load_config([path], environ={})
    assert config.fixture_names("web") == ("a",)
    assert config.vms["web"].open_fixtures == ("a",)


def test_what_needs_an_open_value_waits_with_it(tmp_path: Path) -> None:
    path = tmp_path / "maqet.yaml"
    path.write_text("vms: {web: {kernel: {fixture: built}, initrd: /boot/initrd, append: quiet}}")
    config = load_config([path], environ={})
    assert config.vms["web"].open_fixtures == ("built",)
    vm = config.vm("web", fixture_values={"built": "/boot/vmlinuz"})
    assert (str(vm.kernel), str(vm.initrd), vm.append) == ("/boot/vmlinuz", "/boot/initrd", "quiet")
