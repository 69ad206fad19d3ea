"""The JSON Schema agrees with the loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pytest_maqet.config import load_config
from pytest_maqet.config.documents import VM_KEYS
from pytest_maqet.config.json_schema import json_schema
from pytest_maqet.errors import ConfigError

QUICKSTART = """
default: web
defaults: {timeouts: {ready: 90}}
vms:
  web:
    image: builtin:linux
    memory: 256M
    ready:
      - console: "guest ready"
      - agent
      - {port: {port: 22, banner: SSH}, timeout: 3}
      - http: 8080
      - {event: RESET}
    network: [user, {user: {forward: {ssh: 22}}}]
    storage:
      - {name: a, size: 1G}
      - {name: cd, type: cdrom, file: x.iso}
    fail_on: [oops, {mine: x}]
    arguments: [no-reboot, {display: gtk, zoom-to-fit: on}, {device: {virtio-rng-pci: null, id: r0}}]
    guest: {connect: [agent, console], login: [{expect: "login:", send: root}]}
  store:
    extends: web
    memory: 536870912
    cpu: {model: max, count: 2}
    scope: session
    fail_on: {without: [panic]}
    image: {fixture: built}
    vga: null
    accel: ${ACCEL:-tcg}
"""


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_quickstart(tmp_path: Path, validator: Any) -> None:
    validator.validate(yaml.safe_load(QUICKSTART))
    path = tmp_path / "maqet.yaml"
    path.write_text(QUICKSTART)
    load_config([path], environ={})


def test_single_vm(validator: Any) -> None:
    validator.validate({"name": "web", "image": "x.qcow2", "memory": "1G"})


@pytest.mark.parametrize(
    "keys",
    [
        {"memroy": "1G"},
        {"memory": "lots"},
        {"memory": True},
        {"scope": "functoin"},
        {"cpu": {"cuont": 1}},
        {"cpu": "two"},
        {"storage": [{"size": "1G"}]},
        {"storage": [{"name": "a", "type": "qcow"}]},
        {"ready": [{"consol": "x"}]},
        {"ready": "x"},
        {"network": ["usr"]},
        {"network": [{"user": {"forward": {"ssh": 70000}}}]},
        {"image": {"url": "https://x/y"}},
        {"fail_on": {"onyl": []}},
        {"serial": "main"},
        {"timeouts": {"ready": "soon"}},
        {"arguments": {"a": "b"}},
    ],
)
def test_both_refuse(tmp_path: Path, validator: Any, keys: dict[str, Any]) -> None:
    tree = {"vms": {"web": keys}}
    assert not validator.is_valid(tree), "the schema lets it through"
    path = tmp_path / "maqet.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError):
        load_config([path], environ={})


def test_every_key_is_described() -> None:
    properties = json_schema()["$defs"]["Vm"]["properties"]
    assert set(properties) == set(VM_KEYS)
    assert all(len(value["description"]) > 5 for value in properties.values())
