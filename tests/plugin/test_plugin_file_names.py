"""Any name of a file is a name of a file, wherever a path can go: from the YAML to QEMU and back."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_maqet.guests.builtin import builtin_guest

#: What shells, option parsers, URLs, formats and QEMU's protocols (`nbd:`, `json:`, `fat:`) would take apart.
NAMES = {
    "everything": "a b,c=d%s\n-x",
    "dash": "-drive",
    "quotes": "ü'\"`$(id)$HOME",
    "protocol": "nbd:x:1,,",
    "pseudo-protocol": 'json:{"driver":"x"}',
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_is_a_name_everywhere(suite, monkeypatch, name):
    home = suite.path / name
    home.mkdir()
    config = write_vms(home, name)
    base = suite.run_base / name
    monkeypatch.setenv("MAQET_RUN_BASE", str(base))
    suite.tests(
        f"""
        import pathlib

        def test_it(booted, direct):
            assert booted.workdir.is_relative_to({str(base)!r})
            for vm in (booted, direct):
                assert vm.qmp.execute("query-status")["status"] == "running", vm.command_line
            nodes = booted.qmp.execute("query-named-block-nodes")
            found = {{node["image"]["filename"] for node in nodes}}
            assert {str(home / name)!r} + ".raw" in found, found
            backing = {{node["image"].get("full-backing-filename", "") for node in nodes}}
            assert any(file.endswith({str(home / name)!r} + ".qcow2") for file in backing), backing
            assert False, "for the artefacts"
        """
    )
    result = suite.run(
        f"--maqet-config={config}",
        f"--maqet-artifacts={home / 'kept'}",
        "--maqet-start=boot",
    )
    assert "for the artefacts" in result.stdout.str(), "the test came as far as its end"
    kept = {path.name for path in (home / "kept").rglob("*.log")}
    assert "booted-console-main.log" in kept, f"artefacts: {kept}"
    assert not list(base.glob("*/*")), "nothing is left in the run's directory"


def write_vms(home: Path, name: str) -> Path:
    """A VM that boots from files of that name, and one with a kernel; returns the configuration file."""
    linux = builtin_guest("linux", "x86_64", report=lambda _line: None)
    assert linux.kernel is not None
    assert linux.initrd is not None
    nano = builtin_guest("nano", "x86_64", report=lambda _line: None).image
    assert nano is not None
    bios = next(Path("/usr/share").glob("*/bios-256k.bin"))
    for suffix, source in (
        (".img", nano),
        (".vmlinuz", linux.kernel),
        (".initrd", linux.initrd),
        (".bios", bios),
    ):
        shutil.copyfile(source, home / f"{name}{suffix}")
    (home / f"{name}.raw").write_bytes(bytes(1 << 16))
    overlay = home / f"{name}.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", f"file:{overlay}", "1M"], check=True)
    qemu = shutil.which("qemu-system-x86_64")
    (home / f"{name}.bin").symlink_to(str(qemu))
    small = {"memory": "64M", "guest": {"connect": ["console"]}}
    booted = {
        **small,
        "image": f"./{name}.img",
        "firmware": f"./{name}.bios",
        "binary": f"./{name}.bin",
        "storage": [
            {"name": "raw", "type": "raw", "file": f"./{name}.raw", "readonly": True},
            {"name": "over", "backing_file": f"{name}.qcow2"},
        ],
        "ready": [{"console": "guest ready"}],
    }
    direct = {**small, "kernel": f"{name}.vmlinuz", "initrd": f"{name}.initrd"}
    config = home / f"{name}.yaml"
    config.write_text(json.dumps({"vms": {"booted": booted, "direct": direct}}))
    return config
