"""The probe guest: its bytes are its source, it runs where guests run, and it leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pytest_maqet.qemu
from pytest_maqet.qemu.capabilities import Capabilities, capabilities
from pytest_maqet.qemu.probe import BOOT_SECTOR, WORD, has_probe_guest, probe

SOURCE = Path(pytest_maqet.qemu.__path__[0]) / "probe_guest.asm"


@pytest.mark.skipif(
    shutil.which("nasm") is None, reason="nasm, which assembles the probe guest, is not installed"
)
def test_the_probe_guest_is_its_source_assembled(tmp_path: Path) -> None:
    image = tmp_path / "probe.img"
    subprocess.run(["nasm", "-f", "bin", SOURCE, "-o", image], check=True, timeout=20)
    assert image.read_bytes() == BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa"
    assert WORD in BOOT_SECTOR


def test_the_probe_guest_runs_under_tcg(caps: Capabilities) -> None:
    started = time.monotonic()
    verdict = probe(caps, "tcg", "max")
    assert verdict.works, verdict.reason
    assert verdict.reason.startswith("a probe guest ran in 0.") or time.monotonic() - started > 1


def test_a_guest_that_gets_no_time_is_given_up(caps: Capabilities) -> None:
    verdict = probe(caps, "tcg", "max", patience=0.01)
    assert not verdict.works
    assert "did not get to run" in verdict.reason


@pytest.mark.parametrize(
    ("accelerator", "cpu", "said"),
    [("nonesuch", "max", "nonesuch"), ("tcg", "nonesuch", "nonesuch"), ("tcg", "host", "host")],
)
def test_a_qemu_that_refuses_tells_why(accelerator: str, cpu: str, said: str, caps: Capabilities) -> None:
    verdict = probe(caps, accelerator, cpu)
    assert not verdict.works
    assert "QEMU ended with status 1" in verdict.reason
    assert said in verdict.reason


def test_a_silent_program_is_given_up_in_time(tmp_path: Path, binary: Path) -> None:
    script = tmp_path / "qemu"
    script.write_text(f'#!/bin/sh\ncase "$*" in *fdset*) exec sleep 60;; esac\nexec {binary} "$@"\n')
    script.chmod(0o755)
    caps = capabilities(script)
    started = time.monotonic()
    verdict = probe(caps, "tcg", "max")
    assert not verdict.works
    assert time.monotonic() - started < 3, "nobody waits long for a guest that uses no processor time"


def test_a_loud_program_that_says_something_else_does_not_pass(tmp_path: Path, binary: Path) -> None:
    script = tmp_path / "qemu"
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *fdset*) exec head -c 3000000 /dev/zero;; esac\nexec {binary} "$@"\n'
    )
    script.chmod(0o755)
    assert not probe(capabilities(script), "tcg", "max").works


def test_a_busy_host_gets_more_time(caps: Capabilities) -> None:
    burners = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))
    ]
    try:
        assert probe(caps, "tcg", "max", patience=0.5).works, "the guest was slow, not broken"
    finally:
        for one in burners:
            one.kill()
            one.wait()


PROBE = """
import sys
from pathlib import Path
from pytest_maqet.qemu.capabilities import capabilities
from pytest_maqet.qemu.probe import probe
caps = capabilities(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    probe(caps, "tcg", "max", patience=5)
"""


def test_a_probe_whose_owner_is_killed_ends_by_itself(binary: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", PROBE, str(binary)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    owner.stdout.readline()
    child = _child_of(owner.pid)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 20
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _alive(child), "the probe guest resets, which ends its QEMU"


def test_there_is_a_probe_guest_for_pcs(caps: Capabilities) -> None:
    assert has_probe_guest(caps)


def _child_of(pid: int) -> int:
    deadline = time.monotonic() + 20
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while time.monotonic() < deadline:
        found = children.read_text().split()
        if found:
            return int(found[0])
    raise AssertionError("no probe was started")


def _alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
