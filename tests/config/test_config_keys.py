"""Every key of a VM: what it takes, and what it refuses with which words."""

# ruff: noqa: E501 - messages and YAML stand as users see them
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_maqet.config import (
    FAILURE_PATTERNS,
    BuiltinImage,
    Cpu,
    ImagePath,
    RemoteImage,
    VmConfig,
    format_size,
    load_config,
    parse_size,
)
from pytest_maqet.config.documents import VM_KEYS
from pytest_maqet.errors import ConfigError

SHA256, SHA512 = "aB" * 32, "0" * 128


def web(tmp_path: Path, keys: str) -> VmConfig:
    path = tmp_path / "m.yaml"
    path.write_text(f"vms:\n  web:\n    {keys}\n")
    return load_config([path], environ={"N": "4", "YES": "true"}).vms["web"]


def problems(tmp_path: Path, keys: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        web(tmp_path, keys)
    return [line.replace(f"{tmp_path}/", "") for line in caught.value.problems]


def test_defaults(tmp_path: Path) -> None:
    vm = web(tmp_path, "memory:")
    assert (vm.memory, vm.cpu, vm.arch, vm.display, vm.serial) == (
        256 << 20,
        Cpu(),
        "x86_64",
        "none",
        ("main",),
    )
    assert (vm.scope, vm.teardown, vm.start, vm.accel, vm.ready) == ("function", "kill", None, None, None)
    assert vm.fail_on.patterns == tuple(FAILURE_PATTERNS.items())
    assert vm.timeouts.model_dump() == {
        "ready": 60,
        "wait": 30,
        "command": 60,
        "stop": 10,
        "qmp": 10,
        "lock": 300,
    }
    assert vm.guest.connect == ("agent", "ssh", "console")


@pytest.mark.parametrize(
    ("keys", "key", "value"),
    [
        ("image: builtin:linux", "image", BuiltinImage(name="linux")),
        ("image: /x.qcow2", "image", ImagePath(path=Path("/x.qcow2"))),
        (
            f"image: {{url: 'https://x/y', sha256: {SHA256}}}",
            "image",
            RemoteImage(url="https://x/y", sha256=SHA256.lower()),
        ),
        ("firmware: bios", "firmware", "bios"),
        ("firmware: /fw", "firmware", Path("/fw")),
        ("cpu: 2", "cpu", Cpu(count=2)),
        ("cpu: ${N}", "cpu", Cpu(count=4)),
        ("cpu: {model: max, count: '${N}'}", "cpu", Cpu(model="max", count=4)),
        ("memory: 1G", "memory", 1 << 30),
        ("memory: 1.5 GiB", "memory", 3 << 29),
        ("memory: 268435456", "memory", 256 << 20),
        ("arch: aarch64", "arch", "aarch64"),
        ("machine: q35,smm=off", "machine", "q35,smm=off"),
        ("accel: tcg", "accel", "tcg"),
        ("scope: run", "scope", "run"),
        ("start: boot", "start", "boot"),
        ("teardown: stop", "teardown", "stop"),
        ("provides: net", "provides", ("net",)),
        ("provides: [net, gpu]", "provides", ("net", "gpu")),
        ("serial: [main, log]", "serial", ("main", "log")),
        ("gdb: false", "gdb", False),
        ("collect: []", "collect", ()),
        ("count: 1", "count", 1),
    ],
)
def test_values(tmp_path: Path, keys: str, key: str, value: Any) -> None:
    assert getattr(web(tmp_path, keys), key) == value


@pytest.mark.parametrize(
    ("entry", "kind", "arguments"),
    [
        ("console: ready$", "console", {"pattern": "ready$"}),
        ("console: {pattern: a, fail: b}", "console", {"pattern": "a", "fail": "b"}),
        ("port: 22", "port", {"port": 22}),
        ("port: {port: 22, banner: SSH}", "port", {"port": 22, "banner": "SSH"}),
        ("http: 8080", "http", {"port": 8080, "path": "/", "status": 200}),
        ("http: /up", "http", {"port": 80, "path": "/up", "status": 200}),
        ("http: {port: 81, path: /x, status: 404}", "http", {"port": 81, "path": "/x", "status": 404}),
        ("agent", "agent", {}),
        ("agent:", "agent", {}),
        ("agent: true", "agent", {}),
        ("event: RESET", "event", {"name": "RESET", "data": {}}),
        ("event: {name: X, data: {guest: true}}", "event", {"name": "X", "data": {"guest": True}}),
        ("run: test -e /x", "run", {"command": "test -e /x"}),
        ("call: 'mod.ule:function'", "call", {"function": "mod.ule:function"}),
    ],
)
def test_ready(tmp_path: Path, entry: str, kind: str, arguments: dict[str, Any]) -> None:
    [wait] = web(tmp_path, f"ready:\n      - {entry}").ready or ()
    assert (wait.kind, wait.arguments, wait.timeout) == (kind, arguments, None)


def test_ready_time_out(tmp_path: Path) -> None:
    [wait] = web(tmp_path, "ready: [{agent: , timeout: 0.5}]").ready or ()
    assert (wait.kind, wait.timeout) == ("agent", 0.5)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("false", []),
        ("true", list(FAILURE_PATTERNS)),
        ("[]", list(FAILURE_PATTERNS)),
        ("[oops, panic]", [*FAILURE_PATTERNS, "oops"]),
        ("[{mine: 'o+ps'}]", [*FAILURE_PATTERNS, "mine"]),
        ("{only: [panic, x]}", ["panic", "x"]),
        ("{only: []}", []),
        ("{without: [panic]}", [name for name in FAILURE_PATTERNS if name != "panic"]),
        ("{only: [panic, x], without: [x]}", ["panic"]),
    ],
)
def test_fail_on(tmp_path: Path, value: str, names: list[str]) -> None:
    assert [name for name, _ in web(tmp_path, f"fail_on: {value}").fail_on.patterns] == names


def test_network(tmp_path: Path) -> None:
    vm = web(tmp_path, "network: [user, {user: {forward: {ssh: 22}}}, {user: }]")
    assert [(card.kind, dict(card.forward)) for card in vm.network] == [
        ("user", {}),
        ("user", {"ssh": 22}),
        ("user", {}),
    ]


def test_guest(tmp_path: Path) -> None:
    text = "guest: {connect: [console], user: root, prompt: '# $', login: [{expect: 'login:', send: root}, {expect: P, send_env: PW}]}"
    guest = web(tmp_path, text).guest
    assert (guest.connect, guest.user, guest.prompt) == (("console",), "root", "# $")
    assert [(step.expect, step.send, step.send_env) for step in guest.login] == [
        ("login:", "root", None),
        ("P", None, "PW"),
    ]


def test_rtc(tmp_path: Path) -> None:
    rtc = web(tmp_path, "rtc: 2020-02-02T12:00:00").rtc
    assert rtc is not None
    assert rtc.base == "2020-02-02T12:00:00", "a date stays text"
    assert web(tmp_path, "rtc: {base: utc, clock: vm}").rtc is not None


def test_storage_interfaces(tmp_path: Path) -> None:
    vm = web(
        tmp_path,
        "storage: [{name: a}, {name: cd, type: cdrom, path: /x.iso}, {name: r, type: raw, interface: nvme}]",
    )
    assert [(d.interface, d.file) for d in vm.storage] == [
        ("virtio", None),
        ("ide", Path("/x.iso")),
        ("nvme", None),
    ]


LATER = {
    "tpm": "true",
    "vsock": "true",
    "credentials": "{a: b}",
    "shares": "[{path: /x, target: x}]",
    "cloud_init": "{user_data: x}",
    "collect": "[{path: /x}]",
    "after": "[x]",
    "count": "2",
    "matrix": "{memory: [1G, 2G]}",
    "attach": "{ssh: 'u@h:1'}",
    "gdb": "true",
    "requires": "{kvm: true}",
    "firmware": "uefi",
    "network": "[{lan: a}]",
    "storage": "[{name: a, type: virtfs, path: /x}]",
    "guest": "{connect: [ssh]}",
    "ready": "[ssh]",
}


@pytest.mark.parametrize(("key", "value"), [*LATER.items(), ("storage", "[{name: a, persist: true}]"), ("guest", "{key: k}")]
    + [("ready", f"[{{{kind}: x}}]") for kind in ("file", "unit", "process")]
    + [("ready", "[{unit: {value: x}}]"), ("ready", "[{ssh: }]")])  # fmt: skip
def test_not_supported_yet(tmp_path: Path, key: str, value: str) -> None:
    found = problems(tmp_path, f"{key}: {value}")
    assert len(found) == 1, f"one clear answer, and the value itself is right: {found}"
    assert found[0].startswith("m.yaml:3:"), found
    assert f"vms.web.{key}" in found[0]
    assert "not supported yet: " in found[0]


@pytest.mark.parametrize("key", sorted(VM_KEYS))
def test_every_key_refuses_nonsense(tmp_path: Path, key: str) -> None:
    assert problems(tmp_path, f"{key}: {{surely: [not, this]}}"), f"{key} is not validated"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1", 1),
        ("1K", 1024),
        ("1k", 1024),
        ("2M", 2 << 20),
        ("3GiB", 3 << 30),
        ("1 TB", 1 << 40),
        ("0.5K", 512),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert parse_size(format_size(size)) == size
