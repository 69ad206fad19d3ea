"""The JSON Schema of a configuration file, made from the models: what editors complete and check by."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from pytest_maqet.config.later_models import LATER_KEYS
from pytest_maqet.config.vm_model import VmConfig

#: What each key of a VM means, in a line.
DESCRIPTIONS = {
    "prepare": "What is done in the guest once it is ready, before it is frozen",
    "after_clone": "Commands that each clone runs before a test has it",
    "extends": "The VM whose keys lie under this one's",
    "image": "A disk image: a path, builtin:linux, builtin:nano, or {url, sha256 or sha512}; never written",
    "kernel": "Kernel image to boot directly",
    "initrd": "Initial RAM disk for `kernel`",
    "append": "Kernel command line for `kernel`",
    "firmware": "bios, or the path of a firmware image",
    "binary": "The QEMU program: a name on PATH or a path; default qemu-system-ARCH",
    "arch": "The target architecture",
    "machine": "QEMU's machine type",
    "cpu": "Number of processors, or {model, count}",
    "memory": "Guest memory: a size such as 512M",
    "display": "QEMU's display; none needs no screen",
    "vga": "QEMU's graphics card",
    "rtc": "The guest's clock: utc, localtime, a date, or {base, clock, driftfix}",
    "accel": "Accelerator: auto, kvm, hvf or tcg",
    "storage": "Disks and CD drives, merged by name across files",
    "network": "Network cards",
    "guest": "How commands get into the guest",
    "serial": "Names of the serial ports; the first is vm.console",
    "ready": "Waits that must all hold before the VM is handed over",
    "fail_on": "Console patterns that are a failure; a list adds to the built-in ones",
    "scope": "How long the VM lives and who shares it",
    "start": "How the VM comes up",
    "fixture": "Name of the VM's fixture; default: the VM's name with _ for -",
    "timeouts": "Seconds that things may take",
    "teardown": "Kill the VM at its end, or stop it in order",
    "secrets": "Environment variables whose values are masked wherever they would appear",
    "requires": "What tests that use the VM need",
    "provides": "Capability words",
    "arguments": "Raw QEMU arguments",
}
_OPEN = [
    {"$ref": "#/$defs/Fixture"},
    {"$ref": "#/$defs/Variable"},
    {"type": "null"},
]


def json_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of one file, in either form.

    Every value may also be `{fixture: NAME}`, text with a `${VARIABLE}`, or null.
    """
    schema = TypeAdapter(VmConfig).json_schema(mode="validation")
    definitions = schema.pop("$defs")
    vm = _vm(schema)
    for model in (*definitions.values(), vm):
        _open_properties(model)
    definitions["Vm"] = vm
    definitions["Fixture"] = {
        "type": "object",
        "description": "The value of a pytest fixture",
        "properties": {"fixture": {"type": "string"}},
        "required": ["fixture"],
        "additionalProperties": False,
    }
    definitions["Variable"] = {
        "type": "string",
        "pattern": r"\$\{",
        "description": "Text with environment variables",
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pytest-maqet configuration",
        "anyOf": [_many_vms(), _single_vm(vm)],
        "$defs": definitions,
    }


def _vm(schema: dict[str, Any]) -> dict[str, Any]:
    properties = {key: value for key, value in schema["properties"].items() if key != "name"}
    properties["extends"] = {"type": "string"}
    for key, value in properties.items():
        later = LATER_KEYS.get(key)
        value["description"] = f"Not supported yet: {later}" if later else DESCRIPTIONS[key]
        value.pop("title", None)
    return {
        "type": "object",
        "description": "One VM",
        "properties": properties,
        "additionalProperties": False,
    }


def _many_vms() -> dict[str, Any]:
    vm = {"$ref": "#/$defs/Vm"}
    return {
        "type": "object",
        "properties": {
            "vms": {
                "type": "object",
                "description": "The VMs by name",
                "propertyNames": {"pattern": "^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$"},
                "additionalProperties": {"anyOf": [vm, {"type": "null"}]},
            },
            "defaults": {**vm, "description": "Keys that lie under every VM"},
            "default": {"type": "string", "description": "The VM that the fixture vm gives"},
            "groups": {
                "type": "object",
                "description": "Not supported yet: groups of VMs",
                "additionalProperties": {"type": "array", "items": {"type": "string"}},
            },
        },
        "additionalProperties": False,
        "minProperties": 1,
    }


def _single_vm(vm: dict[str, Any]) -> dict[str, Any]:
    name = {"type": "string", "description": "The VM's name; default: the file's name without its ending"}
    return {**vm, "description": "One VM at top level", "properties": {"name": name, **vm["properties"]}}


def _open_properties(model: dict[str, Any]) -> None:
    """Let every property and list item be what stands for a value, too."""
    for key, value in model.get("properties", {}).items():
        described = {"description": value.pop("description")} if "description" in value else {}
        _open_items(value)
        model["properties"][key] = {**described, "anyOf": [value, *_OPEN]}


def _open_items(schema: dict[str, Any]) -> None:
    for inner in schema.get("anyOf", []):
        _open_items(inner)
    if isinstance(schema.get("items"), dict):
        schema["items"] = {"anyOf": [schema["items"], *_OPEN]}
