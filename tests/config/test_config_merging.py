"""Files merged left to right, `defaults:` and `extends:` under the VMs, settings over all."""

# ruff: noqa: E501 - messages and YAML stand as users see them
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_maqet.config import Config, load_config
from pytest_maqet.errors import ConfigError


def load(tmp_path: Path, *texts: str, settings: Sequence[str] = (), **options: Any) -> Config:
    files = []
    for number, text in enumerate(texts):
        files.append(tmp_path / f"f{number}.yaml")
        files[-1].write_text(text)
    return load_config(files, settings=settings, environ={}, **options)


def problems(tmp_path: Path, *texts: str, settings: Sequence[str] = ()) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, *texts, settings=settings)
    return tuple(line.replace(f"{tmp_path}/", "") for line in caught.value.problems)


def test_later_file_wins_deep(tmp_path: Path) -> None:
    web = load(
        tmp_path,
        "vms: {web: {memory: 1G, timeouts: {ready: 1, wait: 2}, serial: [a, b]}}",
        "vms: {web: {timeouts: {wait: 3}, serial: [c]}, new: {}}",
    ).vms["web"]
    assert (web.memory, web.timeouts.ready, web.timeouts.wait) == (1 << 30, 1, 3)
    assert web.serial == ("c",), "a list without names is replaced"


def test_null_deletes(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "defaults: {vga: std, timeouts: {ready: 5}}\nvms: {web: {memory: 1G, machine: pc}, store: {extends: web}}",
        "vms: {web: {memory: null, vga: null}, store: {machine: ~, timeouts: {ready: null}}}",
    )
    web, store = config.vms["web"], config.vms["store"]
    assert (web.memory, web.vga, web.timeouts.ready) == (256 << 20, None, 5)
    assert (store.machine, store.timeouts.ready) == (None, 60), "null hides what is extended and the defaults"


def test_storage_is_merged_by_name(tmp_path: Path) -> None:
    web = load(
        tmp_path,
        "vms: {web: {storage: [{name: a, size: 1G}, {name: b, size: 1G, interface: scsi}]}}",
        "vms: {web: {storage: [{name: c}, {name: b, size: 2G}]}}",
    ).vms["web"]
    assert [(disk.name, disk.size, disk.interface) for disk in web.storage] == [
        ("a", 1 << 30, "virtio"),
        ("b", 2 << 30, "scsi"),
        ("c", None, "virtio"),
    ]


def test_storage_name_twice_in_one_file(tmp_path: Path) -> None:
    text = "vms:\n  web:\n    storage:\n      - {name: a}\n      - {name: a, size: 1G}\n"
    assert problems(tmp_path, text) == (
        "f0.yaml:5:16: vms.web.storage[1].name: there are two devices named 'a'",
    )
    again = problems(tmp_path, "vms: {web: {storage: [{name: a}]}}", text)
    assert "there are two devices named 'a'" in again[0], "merging must not hide it"


def test_arguments_are_merged_by_option(tmp_path: Path) -> None:
    web = load(
        tmp_path,
        "vms: {web: {arguments: [{device: a}, {rtc: utc}, {boot: c}, no-reboot]}}",
        "vms: {web: {arguments: [{device: b}, {boot: d}, {netdev: user}]}}",
    ).vms["web"]
    assert [tuple(argument) for argument in web.arguments] == [
        ("device", "a"),
        ("rtc", "utc"),
        ("no-reboot", None),
        ("device", "b"),
        ("boot", "d"),
        ("netdev", "user"),
    ]


def test_precedence(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "defaults: {memory: 1G, vga: a, machine: a, display: a, append: x}\n"
        "vms: {base: {vga: b, machine: b, display: b, kernel: k}, web: {extends: base, machine: c, display: c}}",
        "vms: {web: {display: d}}",
        settings=["vms.web.teardown=stop", "vms.web.teardown=kill"],
    )
    web = config.vm("web", {"append": "y"})
    assert (web.memory, web.vga, web.machine, web.display) == (1 << 30, "b", "c", "d")
    assert (web.teardown, web.append) == ("kill", "y")


def test_chain_of_extends_in_any_order(tmp_path: Path) -> None:
    config = load(tmp_path, "vms: {c: {extends: b}, b: {extends: a, vga: b}, a: {vga: a, machine: m}}")
    assert [(vm.vga, vm.machine) for vm in config.vms.values()] == [("b", "m"), ("b", "m"), ("a", "m")]


def test_long_chain_is_no_recursion(tmp_path: Path) -> None:
    lines = ["  v0: {memory: 3G}"] + [f"  v{n}: {{extends: v{n - 1}}}" for n in range(1, 3000)]
    config = load(tmp_path, "vms:\n" + "\n".join(reversed(lines)))
    assert config.vms["v2999"].memory == 3 << 30


def test_fixture_is_not_inherited(tmp_path: Path) -> None:
    config = load(tmp_path, "vms: {web: {fixture: server}, store: {extends: web}}")
    assert (config.vms["web"].fixture, config.vms["store"].fixture) == ("server", "store")


def test_circle_is_shown(tmp_path: Path) -> None:
    text = "vms:\n  a: {extends: b}\n  b: {extends: a}\n  c: {extends: a}\n"
    assert problems(tmp_path, text) == (
        "f0.yaml:2:16: vms.a.extends: a circle: a -> b -> a; written at a (f0.yaml:2:16), b (f0.yaml:3:16)",
    )


def test_circle_of_one(tmp_path: Path) -> None:
    assert "a circle: a -> a" in problems(tmp_path, "vms: {a: {extends: a}}")[0]


def test_unknown_base(tmp_path: Path) -> None:
    assert problems(tmp_path, "vms: {web: {}, store: {extends: wbe}}") == (
        "f0.yaml:1:33: vms.store.extends: there is no VM 'wbe'; there are web, store; did you mean 'web'?",
    )
    assert "found 5" in problems(tmp_path, "vms: {web: {extends: 5}}")[0]


def test_fault_in_defaults_is_told_once(tmp_path: Path) -> None:
    found = problems(tmp_path, "defaults: {memory: x}\nvms: {a: {}, b: {}, c: {extends: a}}")
    assert len(found) == 1, found
    assert found[0].startswith("f0.yaml:1:20: vms.a.memory: found 'x'")


@pytest.mark.parametrize("key", ["fixture", "extends", "name"])
def test_defaults_cannot_name(tmp_path: Path, key: str) -> None:
    found = problems(tmp_path, f"defaults: {{{key}: x}}\nvms: {{web: {{}}}}")
    assert f"f0.yaml:1:12: defaults.{key}: cannot be the same for all VMs; put it under one VM" in found


def test_single_vm_file(tmp_path: Path) -> None:
    path = tmp_path / "router.yaml"
    path.write_text("binary: /usr/bin/qemu-system-x86_64\nmemory: 2G\narguments: [no-reboot]\n")
    config = load_config([path], environ={})
    assert config.default == "router"
    assert config.vms["router"].memory == 2 << 30
    path.write_text("name: core\nmemory: 2G\n")
    assert list(load_config([path], environ={}).vms) == ["core"]


def test_single_vm_files_beside_others(tmp_path: Path) -> None:
    config = load(
        tmp_path, "vms: {web: {memory: 1G}}\ndefaults: {vga: std}", "name: web\nmachine: pc", "cpu: 2"
    )
    assert config.vms["web"].machine == "pc", "a single VM merges with the one of its name"
    assert config.vms["f2"].vga == "std"
    assert config.default is None


def test_hook_changes_the_tree(tmp_path: Path) -> None:
    def change(tree: dict[str, Any]) -> None:
        tree["vms"]["web"]["memory"] = "1G"
        tree["vms"]["new"] = {"extends": "web", "kernel": Path("k")}
        del tree["vms"]["old"]

    config = load(
        tmp_path, "vms: {web: {vga: std}, old: {}}", settings=["vms.new.vga=none"], change_tree=change
    )
    assert list(config.vms) == ["web", "new"]
    assert (config.vms["new"].memory, config.vms["new"].vga) == (1 << 30, "none")
    assert config.vms["new"].kernel == Path.cwd() / "k", "new paths are relative to the current directory"
    assert config.vms["web"].origin.line == 1


def test_fault_from_the_hook_is_named(tmp_path: Path) -> None:
    def change(tree: dict[str, Any]) -> None:
        tree["vms"]["web"]["memory"] = object()

    with pytest.raises(ConfigError, match=r"^hook pytest_maqet_config: vms\.web\.memory: found <object"):
        load(tmp_path, "vms: {web: {vga: bad}}", change_tree=change)


def test_hook_may_not_nest_a_tree_in_itself(tmp_path: Path) -> None:
    def change(tree: dict[str, Any]) -> None:
        tree["vms"]["web"]["guest"] = tree

    with pytest.raises(ConfigError, match="nested too deeply"):
        load(tmp_path, "vms: {web: {}}", change_tree=change)


def test_default(tmp_path: Path) -> None:
    assert load(tmp_path, "default: b\nvms: {a: {}, b: {}}").default == "b"
    assert load(tmp_path, "vms: {a: {}, b: {}}").default is None
    assert load(tmp_path, "vms: {a: {}}").default == "a"
    assert problems(tmp_path, "default: ba\nvms: {bar: {}}")[0].endswith("did you mean 'bar'?")
    assert "found no; allowed is a VM's name" in problems(tmp_path, "default: no\nvms: {bar: {}}")[0]
