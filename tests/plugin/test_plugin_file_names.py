"""Any name of a file is a name of a file, wherever a path can go: from the YAML to QEMU and back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_maqet.guests.builtin import builtin_guest
from pytest_maqet.host_cache import cache_dir

#: The user's cache, with the guests and the answers about QEMU.
CACHE = cache_dir()

#: What shells, option parsers, URLs, formats and QEMU's protocols (`nbd:`, `json:`, `fat:`) would take apart.
NAMES = {
    "everything": "a b,c=d%s\n-x",
    "dash": "-drive",
    "quotes": "ü'\"`$(id)$HOME",
    "protocol": "nbd:x:1,,",
    "pseudo-protocol": 'json:{"driver":"x"}',
    "option": "file=x,on=y;z#?*[a]\\t\t",
    "no UTF-8": os.fsdecode(b"caf\xe9 \xff\xfe"),
}


#: A name, and how VMs come up; templates take a while to make, and lie beside the other files.
CASES = [(name, "boot") for name in NAMES] + [
    ("everything", "clone"),
    ("quotes", "clone"),
]


@pytest.mark.parametrize(("case", "start"), CASES, ids=map("-".join, CASES))
def test_a_name_is_a_name_everywhere(suite, monkeypatch, case, start):
    name = NAMES[case]
    # YAML is Unicode: such a name can be that of the directory of the file, and of all that options name.
    written = "plain" if case == "no UTF-8" else name
    home = suite.path / name
    home.mkdir()
    config = write_vms(home, written)
    base = suite.run_base / name
    monkeypatch.setenv("MAQET_RUN_BASE", str(base))
    cache = home / f"cache {name}"
    cache.mkdir(mode=0o700)
    for entry in CACHE.iterdir():
        if entry.name != "templates":
            (cache / entry.name).symlink_to(entry)
    monkeypatch.setenv("MAQET_CACHE_DIR", str(cache))
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8:backslashreplace")  # pytester reads UTF-8 only
    suite.tests(
        f"""
        import pathlib

        def test_it(booted, direct):
            assert booted.started_by == direct.started_by == {start!r}
            assert booted.workdir.is_relative_to({str(base)!r})
            for vm in (booted, direct):
                assert vm.qmp.execute("query-status")["status"] == "running", vm.command_line
            nodes = booted.qmp.execute("query-named-block-nodes")
            found = {{node["image"]["filename"] for node in nodes}}
            assert {said(home / written)!r} + ".raw" in found, found
            backing = {{node["image"].get("full-backing-filename", "") for node in nodes}}
            assert any({said(home / written)!r} + ".qcow2" in file for file in backing), backing
            assert False, "for the artefacts"
        """
    )
    result = suite.run(
        f"--maqet-config={config}",
        f"--maqet-artifacts={home / 'kept'}",
        f"--maqet-start={start}",
    )
    assert "for the artefacts" in result.stdout.str(), "the test came as far as its end"
    kept = {path.name for path in (home / "kept").rglob("*.log")}
    assert "booted-console-main.log" in kept, f"artefacts: {kept}"
    assert not list(base.glob("*/*")), "nothing is left in the run's directory"
    if start == "clone":
        assert len(list((cache / "templates").glob("*/memory.ram"))) >= 2, "the templates lie elsewhere"


def said(path: Path) -> str:
    """A path as QMP has it, which is UTF-8."""
    return os.fsencode(path).decode(errors="replace")


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


def test_a_base_that_qmp_cannot_name_has_vms_that_boot(suite, monkeypatch, own_cache):
    monkeypatch.setenv("MAQET_RUN_BASE", str(suite.run_base / NAMES["no UTF-8"]))
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8:backslashreplace")
    suite.tests("def test_it(nano): assert nano.started_by == 'boot'")
    result = suite.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["nano was booted: *QMP is UTF-8, and the name *udce9*"])
