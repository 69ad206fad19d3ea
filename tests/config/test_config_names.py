"""VM names and the names of their fixtures."""

# ruff: noqa: E501 - messages and YAML stand as users see them
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_maqet.config import Config, load_config
from pytest_maqet.errors import ConfigError


def load(tmp_path: Path, text: str, reserved: Mapping[str, str] | None = None) -> Config:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    return load_config([path], environ={}, reserved=reserved or {})


def problems(tmp_path: Path, text: str, reserved: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, reserved)
    return [line.replace(f"{tmp_path}/", "") for line in caught.value.problems]


def test_fixture_names(tmp_path: Path) -> None:
    config = load(tmp_path, "vms: {web-server: {}, 9p: {fixture: nine_p}, x: {fixture: y}}")
    assert [vm.fixture for vm in config.vms.values()] == ["web_server", "nine_p", "y"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "vms: {9p: {}}",
            "m.yaml:1:7: vms.9p: the fixture name '9p' is no Python identifier; give the VM another one",
        ),
        (
            "vms: {class: {}}",
            "the fixture name 'class' is a Python keyword; give the VM another one with `fixture: NAME`",
        ),
        ("vms: {_web: {}}", "the fixture name '_web' begins with '_'"),
        ("vms: {request: {}}", "m.yaml:1:7: vms.request: the fixture name 'request' is taken by pytest"),
        ("vms: {vm: {}}", "the fixture name 'vm' is taken by pytest-maqet; give the VM another one"),
        ("vms: {tmp-path: {}}", "the fixture name 'tmp_path' is taken by pytest"),
        (
            "vms: {a: {fixture: vm}}",
            "m.yaml:1:20: vms.a.fixture: the fixture name 'vm' is taken by pytest-maqet; choose",
        ),
        ("vms: {a: {fixture: b c}}", "the fixture name 'b c' is no Python identifier; choose another"),
        ("vms: {a: {fixture: ''}}", "the fixture name '' is no Python identifier"),
        (
            "vms: {a-b: {}, a_b: {}}",
            "m.yaml:1:16: vms.a_b: the fixture name 'a_b' is that of VM 'a-b' (m.yaml:1:7) too; give one of them another",
        ),
        (
            "vms: {a: {fixture: b}, b: {}}",
            "m.yaml:1:24: vms.b: the fixture name 'b' is that of VM 'a' (m.yaml:1:20) too",
        ),
        ("vms: {a: {fixture: no}}", "found no, which YAML reads as false; allowed is text"),
    ],
)
def test_refused_fixture_names(tmp_path: Path, text: str, message: str) -> None:
    found = problems(tmp_path, text, {"vm": "pytest-maqet", "tmp_path": "pytest"})
    assert any(message in line for line in found), found


@pytest.mark.parametrize("name", ["a/b", "'a b'", "-a", "é", "a.b", "''", "x" * 65, "a:b"])
def test_refused_vm_names(tmp_path: Path, name: str) -> None:
    assert any(
        "not a name for a VM; allowed are" in line for line in problems(tmp_path, f'vms: {{"{name}": {{}}}}')
    )


def test_name_under_vms_is_refused(tmp_path: Path) -> None:
    found = problems(tmp_path, "vms: {web: {name: x}}")
    assert found == ["m.yaml:1:13: vms.web.name: the VM is named by its key under `vms:`; remove it"]


def test_file_name_that_is_no_fixture(tmp_path: Path) -> None:
    path = tmp_path / "maqet.yaml"
    path.write_text("memory: 1G\n")
    with pytest.raises(ConfigError, match="the fixture name 'maqet' is taken by pytest-maqet"):
        load_config([path], environ={}, reserved={"maqet": "pytest-maqet"})


def test_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(tmp_path, "vms:\n  web: {}\n  store: {extends: web}\n")
    assert str(config.vms["store"].origin) == "m.yaml:3"
    assert config.vms["web"].described_as == "VM 'web' (m.yaml:2)"
