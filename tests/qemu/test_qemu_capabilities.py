"""What a program can do: asked of the real one, kept, and asked again when in doubt."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_maqet.errors import StartError
from pytest_maqet.qemu import question
from pytest_maqet.qemu.capabilities import Capabilities, capabilities

#: Asks in a process of its own, where nothing is remembered, and prints whether QEMU was started for it.
ASK = """
import subprocess, sys
from pathlib import Path
started = []
sys.addaudithook(lambda event, args: started.append(args[0]) if event == "subprocess.Popen" else None)
from pytest_maqet.qemu.capabilities import capabilities
print(capabilities(Path(sys.argv[1])).version_text, len(started))
"""


def ask(binary: Path, cache: Path) -> tuple[str, bool]:
    """The version, and whether the program was started to get it."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(binary)],
        env={**os.environ, "MAQET_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    version, _, started = done.stdout.strip().rpartition(" ")
    return version, started != "0"


def kept_files(cache: Path) -> list[Path]:
    return list((cache / "qemu-capabilities").glob("*.json"))


def test_the_real_program_tells_what_it_can_do(caps: Capabilities, binary: Path) -> None:
    said = subprocess.run(
        [binary, "--version"], capture_output=True, text=True, check=True, timeout=20
    ).stdout
    assert "version " + ".".join(map(str, caps.version)) in said
    assert caps.target == "x86_64"
    assert {"tcg"} <= set(caps.accelerators) <= {"tcg", "kvm", "xen", "hvf", "nvmm", "whpx", "qtest"}
    assert {"virtio-blk-pci", "isa-serial", "pcie-root-port"} <= caps.devices
    assert {"machine", "smp", "blockdev", "fda", "fdb", "S", "no-reboot", "h", "help"} <= caps.flags
    assert "type" in caps.options["machine"]


def test_machine_types_are_known_by_both_names(caps: Capabilities) -> None:
    q35 = caps.machine("q35")
    assert q35 is not None
    assert q35.name.startswith("pc-q35-")
    assert caps.machine(q35.name) == q35
    assert caps.default_machine == caps.machine("pc")
    assert caps.machine("q36") is None
    assert {"q35", q35.name, "microvm"} <= set(caps.machine_names)


def test_the_answer_is_kept_for_other_processes(binary: Path, tmp_path: Path) -> None:
    first, asked = ask(binary, tmp_path)
    assert asked, "nothing was kept yet"
    assert ask(binary, tmp_path) == (first, False), "the second process starts no QEMU"


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"form": 1}',
        b'{"form": 99, "key": "x", "answer": {}}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"x" * 5_000_000,
    ],
    ids=["empty", "cut", "list", "null", "no key", "other form", "binary", "deep", "large"],
)
def test_a_damaged_answer_is_asked_again(damage: bytes, binary: Path, tmp_path: Path) -> None:
    first, _ = ask(binary, tmp_path)
    (kept,) = kept_files(tmp_path)
    kept.write_bytes(damage)
    assert ask(binary, tmp_path) == (first, True)
    assert ask(binary, tmp_path) == (first, False), "and the good answer is kept again"


@pytest.mark.parametrize(
    ("key", "value"),
    [("version", "7.2"), ("version", [7]), ("machines", [{"name": "q35"}]), ("devices", 5), ("options", [])],
)
def test_an_answer_of_another_shape_is_asked_again(
    key: str, value: object, binary: Path, tmp_path: Path
) -> None:
    first, _ = ask(binary, tmp_path)
    (kept,) = kept_files(tmp_path)
    content = json.loads(kept.read_text())
    content["answer"][key] = value
    kept.write_text(json.dumps(content))
    assert ask(binary, tmp_path) == (first, True)


def test_a_directory_in_the_answers_place_does_no_harm(binary: Path, tmp_path: Path) -> None:
    first, _ = ask(binary, tmp_path)
    (kept,) = kept_files(tmp_path)
    kept.unlink()
    kept.mkdir()
    assert ask(binary, tmp_path) == (first, True)


@pytest.mark.parametrize("cache", ["/proc/nowhere", "/dev/null/x", "/sys/maqet"])
def test_a_cache_that_cannot_be_written_costs_only_time(cache: str, binary: Path) -> None:
    version, asked = ask(binary, Path(cache))
    assert asked
    assert version, "the answer is there all the same"


def test_a_cache_that_others_may_write_is_not_trusted(binary: Path, tmp_path: Path) -> None:
    ask(binary, tmp_path)
    (tmp_path / "qemu-capabilities").chmod(0o777)
    _, asked = ask(binary, tmp_path)
    assert asked, "somebody else could have put the answer there"


def test_answers_are_private(binary: Path, tmp_path: Path) -> None:
    ask(binary, tmp_path)
    (kept,) = kept_files(tmp_path)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_an_upgraded_program_is_asked_again(binary: Path, tmp_path: Path) -> None:
    own, new, cache = tmp_path / "qemu", tmp_path / "new", tmp_path / "cache"
    for path in (own, new):
        path.write_text(f'#!/bin/sh\nexec {binary} "$@"\n')
        path.chmod(0o755)
        os.utime(path, ns=(1, 1))
    ask(own, cache)
    new.replace(own)
    ask(own, cache)
    assert len(kept_files(cache)) == 2, "another file was put in its place, so it was asked anew"


def test_a_script_is_asked_for_its_version_every_time(binary: Path, tmp_path: Path) -> None:
    script = tmp_path / "qemu"
    script.write_text(f'#!/bin/sh\nexec {binary} "$@"\n')
    script.chmod(0o755)
    first = capabilities(script)
    assert first.build != capabilities(binary).build
    script.write_text(f'#!/bin/sh\ncase $1 in --version) echo other;; *) exec {binary} "$@";; esac\n')
    os.utime(script, ns=(1, 1))
    assert capabilities(script).build != first.build


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("#!/bin/sh\necho I am no QEMU >&2\nexit 3\n", "I am no QEMU"),
        ("#!/bin/sh\nexit 0\n", "exit status 0, no message"),
        ("#!/nonexistent/shell\n", "cannot be executed"),
        ("no program at all", "cannot be executed"),
        ("#!/bin/sh\necho '{\"return\": {}}'\necho 5\necho '[]'\n", "did not answer as a QEMU does"),
    ],
)
def test_what_is_no_qemu_is_said_to_be_none(content: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "qemu-system-x86_64"
    path.write_text(content)
    path.chmod(0o755)
    with pytest.raises(StartError, match=reason) as caught:
        capabilities(path)
    assert str(path) in str(caught.value)


def test_a_program_that_hangs_is_ended_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(question, "_PATIENCE", 0.5)
    pid_file = tmp_path / "pid"
    path = tmp_path / "qemu-system-x86_64"
    path.write_text(f"#!/bin/sh\ncase $1 in --version) exit;; esac\nsleep 60 & echo $! > {pid_file}; wait\n")
    path.chmod(0o755)
    with pytest.raises(StartError, match=r"did not answer in 0\.5 s"):
        capabilities(path)
    working_directory = Path(f"/proc/{pid_file.read_text().strip()}/cwd")  # a zombie has none
    deadline = time.monotonic() + 10
    while working_directory.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not working_directory.exists(), "the child of the script is gone too"


def test_a_program_that_vanished_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=rf"the QEMU program {tmp_path}/gone cannot be read"):
        capabilities(tmp_path / "gone")


def test_several_processes_at_once_agree(binary: Path, tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ASK, str(binary)],
            env={**os.environ, "MAQET_CACHE_DIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    said = [process.communicate(timeout=60)[0].split() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert len({words[0] for words in said}) == 1
    assert [words[-1] == "0" for words in said].count(False) == 1, f"one asks, the others read: {said}"
