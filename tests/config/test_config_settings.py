"""`--maqet-set`, and the overrides of a marker."""

# ruff: noqa: E501 - messages and YAML stand as users see them
from __future__ import annotations

from pathlib import Path

import pytest

from pytest_maqet.config import Config, load_config
from pytest_maqet.errors import ConfigError

TEXT = """
vms:
  web:
    memory: 1G
    cpu: {model: max, count: 2}
    storage: [{name: data, size: 1G}, {name: logs}]
    arguments: [{device: a}]
  store: {}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "maqet.yaml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def config(file: Path) -> Config:
    return load_config([file], environ={})


def test_values_are_yaml(file: Path) -> None:
    web = load_config(
        [file],
        settings=[
            "vms.web.memory=2G",
            "vms.web.cpu.count=4",
            "vms.web.serial=[a, b]",
            "vms.web.storage.data.size=5G",
            "vms.web.storage.new.interface=scsi",
            "vms.web.vga=",
            "vms.web.append=root=/dev/vda console=ttyS0",
            "vms.web.kernel=/k",
            'vms.web.arguments=[{device: "b,id=x"}]',
            "defaults.display=gtk",
            "default=store",
        ],
        environ={},
    ).vms["web"]
    assert (web.memory, web.cpu.count, web.cpu.model, web.serial) == (2 << 30, 4, "max", ("a", "b"))
    assert [(disk.name, disk.size, disk.interface) for disk in web.storage] == [
        ("data", 5 << 30, "virtio"),
        ("logs", None, "virtio"),
        ("new", None, "scsi"),
    ]
    assert web.append == "root=/dev/vda console=ttyS0"
    assert [argument.value for argument in web.arguments] == ["a", "b,id=x"]
    assert (web.vga, web.display) == (None, "gtk")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "vms.web.memory",
            "--maqet-set vms.web.memory: not of the form KEY.PATH=VALUE; such as vms.web.memory=1G",
        ),
        ("=1", "not of the form KEY.PATH=VALUE"),
        ("vms..memory=1", "not of the form KEY.PATH=VALUE"),
        (
            "web.memory=1G",
            "web: unknown key; allowed are vms, defaults, default, groups; did you mean 'vms.web.memory'?",
        ),
        ("vmz.web.memory=1G", "did you mean 'vms'?"),
        (
            "vms.wbe.memory=1G",
            "vms.wbe.memory: there is no VM 'wbe'; there are web, store; did you mean 'web'?",
        ),
        ("vms=1", "vms: no VM is named; there are web, store"),
        (
            "vms.web.memroy=1G",
            "--maqet-set vms.web.memroy=1G: vms.web.memroy: unknown key; did you mean 'memory'?",
        ),
        (
            "vms.web.memory=1X",
            "--maqet-set vms.web.memory=1X: vms.web.memory: found '1X'; allowed is a size such as 256M, 1G or a number "
            "of bytes",
        ),
        (
            "vms.web.display=no",
            'found no, which YAML reads as false; allowed is text: write it in quotes, "no"',
        ),
        ("vms.web.memory=[", "--maqet-set vms.web.memory=[: not valid YAML:"),
        (
            "vms.web.memory=${NONE}",
            "--maqet-set vms.web.memory=${NONE}: environment variable 'NONE' is not set",
        ),
        ("vms.web=5", "--maqet-set vms.web=5: vms.web: found 5; allowed is a mapping of its keys"),
        ("default=x", "--maqet-set default=x: default: there is no VM 'x'; there are web, store"),
        ("groups={a: [web]}", "--maqet-set groups={a: [web]}: groups: not supported yet: groups of VMs"),
    ],
)
def test_errors_name_the_option(file: Path, setting: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config([file], settings=[setting], environ={})
    assert message in str(caught.value)
    assert str(caught.value).startswith("--maqet-set "), "the option comes first, as a file's name would"


def test_overrides(config: Config) -> None:
    web = config.vm(
        "web",
        {
            "memory": "2G",
            "cpu.count": 8,
            "timeouts": {"ready": 7},
            "storage.data.size": "9G",
            "kernel": Path("k"),
        },
        source="marker of test_x",
    )
    assert (web.memory, web.cpu.count, web.cpu.model, web.timeouts.ready) == (2 << 30, 8, "max", 7)
    assert [disk.size for disk in web.storage] == [9 << 30, None]
    assert web.kernel == Path.cwd() / "k"
    assert config.vms["web"].memory == 1 << 30, "the VM itself is as it was"


def test_without_overrides_it_is_the_same_vm(config: Config) -> None:
    assert config.vm("web") is config.vms["web"]
    assert config.vm("web", {"memory": "1024M"}) == config.vms["web"], "equal when it says the same"
    assert hash(config.vm("web", {"memory": "1024M"})) == hash(config.vms["web"])
    assert config.vm("web", {"memory": "2G"}) != config.vms["web"]
    assert config.vm("web", {"memory": "2G"}).key != config.vms["web"].key


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"memroy": "1G"}, "marker of test_x: vms.web.memroy: unknown key; did you mean 'memory'?"),
        ({"memory": "x"}, "marker of test_x: vms.web.memory: found 'x'; allowed is a size"),
        ({"cpu.count": 0}, "marker of test_x: vms.web.cpu.count: found 0 (int); allowed is 1 or more"),
        ({"cpu.cuont": 1}, "vms.web.cpu.cuont: unknown key; allowed are model, count; did you mean 'count'?"),
        ({"display": False}, "vms.web.display: found False (bool); allowed is text"),
        ({"memory": object}, "vms.web.memory: found <class 'object'>"),
        ({"extends": "store"}, "vms.web.extends: cannot be changed for one test; change it in the YAML"),
        ({"fixture": "x"}, "cannot be changed for one test"),
        ({"gdb": True}, "marker of test_x: vms.web.gdb: not supported yet: a gdb stub"),
    ],
)
def test_wrong_overrides(config: Config, overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.vm("web", overrides, source="marker of test_x")
    assert message in str(caught.value)


def test_override_that_contains_itself(config: Config) -> None:
    endless: dict[str, object] = {}
    endless["cpu"] = endless
    with pytest.raises(ConfigError, match="nested too deeply"):
        config.vm("web", endless, source="marker")


def test_unknown_vm(config: Config) -> None:
    with pytest.raises(ConfigError) as caught:
        config.vm("stroe", source="marker of test_x")
    assert (
        str(caught.value)
        == "marker of test_x: there is no VM 'stroe'; there are web, store; did you mean 'store'?"
    )
