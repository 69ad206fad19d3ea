"""Faults in a VM: the place, the key path, what was found, what is allowed, the nearest valid word."""

# ruff: noqa: E501 - messages and YAML stand as users see them
from __future__ import annotations

from pathlib import Path

import pytest

from pytest_maqet.config import load_config
from pytest_maqet.errors import ConfigError


def problems(tmp_path: Path, text: str) -> tuple[str, ...]:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config([path], environ={})
    return tuple(line.replace(f"{tmp_path}/", "") for line in caught.value.problems)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("memroy: 1G", "m.yaml:1:13: vms.web.memroy: unknown key; did you mean 'memory'? allowed are image, kernel,"),
        ("args: [x]", "did you mean 'arguments'?"),
        ("memory: 256Q", "m.yaml:1:21: vms.web.memory: found '256Q'; allowed is a size such as 256M, 1G or a number of bytes"),
        ("memory: [1G]", "vms.web.memory: found a list; allowed is a size"),
        ("memory: -1", "vms.web.memory: found -1; allowed is a size"),
        ("memory: 512", "found 512; that is 512 bytes, and a machine needs 1M at least; write 512M"),
        ("memory: 1.5", "found 1.5; allowed is a size"),
        ("memory: yes", "found yes, which YAML reads as true; allowed is a size"),
        ("display: no", 'm.yaml:1:22: vms.web.display: found no, which YAML reads as false; allowed is text: write it in quotes, "no"'),
        ("machine: 1:30", 'found 1:30, which YAML reads as 90; allowed is text: write it in quotes, "1:30"'),
        ("append: 010, kernel: k", 'found 010, which YAML reads as 8; allowed is text: write it in quotes, "010"'),
        ("append: 1.10, kernel: k", 'found 1.10, which YAML reads as 1.1; allowed is text: write it in quotes, "1.10"'),
        ("vga: {a: b}", "vms.web.vga: found a mapping; allowed is text"),
        ("vga: ''", "vms.web.vga: found an empty text; leave the key out instead"),
        ("cpu: two", "found 'two'; allowed is a number of processors, or {model: …, count: …}; write {model: two}"),
        ("cpu: no", "found no, which YAML reads as false; allowed is a number of processors"),
        ("cpu: 0", "vms.web.cpu: found 0; allowed is 1 or more"),
        ("cpu: {cuont: 1}", "m.yaml:1:19: vms.web.cpu.cuont: unknown key; allowed are model, count; did you mean 'count'?"),
        ("cpu: {count: true}", "vms.web.cpu.count: found true; allowed is a whole number"),
        ("scope: functoin", "vms.web.scope: found 'functoin'; allowed are function, class, module, package, session, run; did you mean 'function'?"),
        ("accel: xen", "vms.web.accel: found 'xen'; allowed are auto, kvm, hvf, tcg"),
        ("arch: amd64", "vms.web.arch: found 'amd64'; did you mean 'x86_64'? allowed are aarch64,"),
        ("arch: amd64", "did you mean 'x86_64'?"),
        ("image: builtin:linxu", "there is no builtin guest 'linxu'; allowed are builtin:linux, builtin:nano; did you mean 'builtin:linux'?"),
        ("image: 'https://x/y'", "found 'https://x/y'; a download needs a checksum: {url: …, sha256: …}"),
        ("image: {url: 'https://x/y'}", "vms.web.image: found 0 checksums; needed is exactly one of sha256 and sha512"),
        ("image: {url: x, sha256: a}", "m.yaml:1:26: vms.web.image.url: found the URL 'x'"),
        ("image: {url: 'https://x/y', sha256: abc}", "vms.web.image.sha256: found 'abc'; allowed are 64 hexadecimal digits"),
        ("image: {url: 'https://x/y', md5: abc}", "vms.web.image.md5: unknown key 'md5'; allowed are url, sha256, sha512"),
        ("image: 5", "vms.web.image: found 5; allowed are a path, builtin:NAME"),
        ("append: x", "vms.web.append: `append` without `kernel`"),
        ("initrd: x", "vms.web.initrd: `initrd` without `kernel`"),
        ("storage: {name: a}", "vms.web.storage: found a mapping; allowed is a list"),
        ("storage: [a]", "vms.web.storage[0]: found 'a'; allowed is a mapping"),
        ("storage: [{size: 1G}]", "m.yaml:1:23: vms.web.storage[0].name: the key 'name' is missing"),
        ("storage: [{name: a, type: qcow}]", "vms.web.storage[0].type: found 'qcow'; allowed are qcow2, raw, virtfs, cdrom; did you mean 'qcow2'?"),
        ("storage: [{name: a, type: raw, backing_file: b}]", "vms.web.storage[0].backing_file: a raw disk cannot have a backing file"),
        ("storage: [{name: a, backing_format: raw}]", "found `backing_format` without `backing_file`"),
        ("storage: [{name: a, file: b, path: c}]", "found both `file` and `path`"),
        ("storage: [{name: a, type: cdrom, size: 1G}]", "vms.web.storage[0].size: `size` means nothing for type cdrom"),
        ("storage: [{name: a, mount_tag: x}]", "vms.web.storage[0].mount_tag: `mount_tag` means nothing for type qcow2"),
        ("storage: [{name: ../a}]", "vms.web.storage[0].name: found '../a'; allowed are up to 64 letters"),
        ("image: x, storage: [{name: root}]", "vms.web.storage[0].name: the name 'root' is that of the disk `image` makes"),
        ("network: [usr]", "vms.web.network[0]: found 'usr'; allowed are user,"),
        ("network: [{user: {forward: {ssh: 0}}}]", "vms.web.network[0].user.forward.ssh: found 0; allowed is a TCP port"),
        ("network: [{user: {forward: {ssh: '22:22'}}}]", "found '22:22'; allowed is a whole number"),
        ("network: [{user: {forwrad: {}}}]", "did you mean 'forward'?"),
        ("network: [{}]", "vms.web.network[0]: found an empty mapping"),
        ("guest: {connect: [agnet]}", "vms.web.guest.connect[0]: found 'agnet'; allowed are agent, ssh, console; did you mean 'agent'?"),
        ("guest: {connect: [agent, agent]}", "vms.web.guest.connect[1]: 'agent' stands there twice"),
        ("guest: {login: [{expect: '('}]}", "vms.web.guest.login[0].expect: the regular expression '(' is wrong"),
        ("guest: {login: [{expect: a}]}", "vms.web.guest.login[0]: found neither; needed is one of send, send_env"),
        ("guest: {password_env: a b}", "allowed is the name of an environment variable"),
        ("serial: []", "vms.web.serial: found an empty list; a VM has one serial port at least"),
        ("serial: [a, a]", "vms.web.serial[1]: 'a' stands there twice"),
        ("ready: [{console: '('}]", "vms.web.ready[0].console: the regular expression '(' is wrong: missing )"),
        ("ready: [{console: {pattern: a, console: b}}]", "vms.web.ready[0].console.console: there is no serial port 'b'; allowed are main"),
        ("ready: [{console: a, port: 1}]", "vms.web.ready[0]: found console and port in one wait; needed is exactly one of"),
        ("ready: [{timeout: 1}]", "vms.web.ready[0]: found a wait without a condition"),
        ("ready: [{port: 70000}]", "vms.web.ready[0].port: found 70000; allowed is a TCP port, 1 to 65535"),
        ("ready: [{agent: x}]", "vms.web.ready[0].agent: found 'x'; allowed is just `agent`, without a value"),
        ("ready: [{call: nothing}]", "vms.web.ready[0].call: found 'nothing'; allowed is 'module:function'"),
        ("ready: [{console: a, timeout: soon}]", "vms.web.ready[0].timeout: found 'soon'; allowed is a number of seconds"),
        ("ready: [{consol: a}]", "did you mean 'console'?"),
        ("fail_on: ['(']", "vms.web.fail_on[0]: the regular expression '(' is wrong"),
        ("fail_on: {without: [{a: b}]}", "vms.web.fail_on.without[0]: found {'a': 'b'}; allowed are panic,"),
        ("ready: [{console: '[[a]'}]", "the regular expression '[[a]' is wrong: Possible nested set"),
        ("fail_on: {without: [panik]}", "vms.web.fail_on.without[0]: found 'panik'; allowed are panic,"),
        ("fail_on: {onyl: []}", "vms.web.fail_on.onyl: unknown key 'onyl'"),
        ("fail_on: panic", "vms.web.fail_on: found 'panic'; allowed are a list of patterns, {only: [...]}"),
        ("timeouts: {ready: -1}", "vms.web.timeouts.ready: found -1; allowed is a number of seconds"),
        ("timeouts: {ready: .inf}", "found .inf, which YAML reads as inf; allowed is a number of seconds"),
        ("timeouts: {redy: 1}", "did you mean 'ready'?"),
        ("teardown: kil", "did you mean 'kill'?"),
    ],
)  # fmt: skip
def test_message(tmp_path: Path, keys: str, message: str) -> None:
    found = problems(tmp_path, f"vms: {{web: {{{keys}}}}}")
    assert len(found) == 1, f"one fault, one line: {found}"
    assert found[0].startswith("m.yaml:1:"), f"the place comes first: {found[0]}"
    assert message in found[0]


def test_all_faults_at_once(tmp_path: Path) -> None:
    text = (
        "default: wbe\n"
        "vms:\n"
        "  web:\n"
        "    memory: lots\n"
        "    storage:\n"
        "      - {name: a, size: big}\n"
        "      - {name: b, sise: 1G}\n"
        "    gdb: true\n"
        "    kernel: ${NO_SUCH}\n"
        "  store: {extends: wob, scope: sesion}\n"
        "  import: {vga: no}\n"
    )
    places = sorted(line.split(": ")[0] for line in problems(tmp_path, text))
    assert places == sorted(
        [
            "m.yaml:1:10",
            "m.yaml:4:13",
            "m.yaml:6:25",
            "m.yaml:7:19",
            "m.yaml:8:5",
            "m.yaml:9:13",
            "m.yaml:10:20",
            "m.yaml:11:3",
            "m.yaml:11:17",
        ]
    ), "each fault is told once, with its place"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vmz: {web: {}}", "m.yaml:1:1: vmz: unknown key; allowed are vms, defaults, default, groups; did you mean 'vms'?"),
        ("machines: {web: {}}\ndefault: web", "m.yaml:1:1: machines: unknown key; allowed are vms, defaults, default, groups; did you mean 'vms'?"),
        ("name: m\nmemroy: 1G", "m.yaml:2:1: vms.m.memroy: unknown key; did you mean 'memory'?"),
        ("vms: {web: {}}\ndefautls: {}", "m.yaml:2:1: defautls: unknown key; allowed are vms, defaults, default, groups; did you mean 'defaults'?"),
        ("vms: {web: {}}\nmemory: 1G", "m.yaml:2:1: memory: a key of a VM beside `vms:`; put it under `defaults:` or under one VM"),
        ("vms: {}", "m.yaml:1:1: vms: no VM is described; such as"),
        ("default: web", "m.yaml:1:1: vms: no VM is described"),
        ("vms: [web]", "m.yaml:1:6: vms: found ['web']; allowed is a mapping"),
        ("vms: {web: 5}", "m.yaml:1:12: vms.web: found 5; allowed is a mapping of its keys"),
        ("vms: {web: {}}\ndefaults: []", "m.yaml:2:11: defaults: found []; allowed is a mapping"),
        ("vms: {web: {}}\ngroups: {a: [web]}", "m.yaml:2:1: groups: not supported yet: groups of VMs"),
        ("{}", "m.yaml:1:1: found an empty mapping"),
        ("name: 5\nmemory: 1G", "m.yaml:1:7: name: found 5; allowed is a name, as text"),
    ],
)  # fmt: skip
def test_top_level(tmp_path: Path, text: str, message: str) -> None:
    found = problems(tmp_path, text)
    assert any(message in line for line in found), found
    assert len(found) == 1, found


def test_fault_in_an_included_file_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("vms: {web: {memory: bad}}")
    (tmp_path / "b.yaml").write_text("vms: {web: {cpu: bad}}")
    with pytest.raises(ConfigError) as caught:
        load_config([tmp_path / "a.yaml", tmp_path / "b.yaml"], environ={})
    assert [line.split(":")[0].rpartition("/")[2] for line in caught.value.problems] == ["b.yaml", "a.yaml"]


def test_file_is_shown_relative_to_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.yaml").write_text("vms: {web: {memory: bad}}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^sub/a\.yaml:1:21: vms\.web\.memory: "):
        load_config([Path("sub/a.yaml")], environ={})
