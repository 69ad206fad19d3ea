"""maqet-wake as a program: what it is made from, and its form for one message; on this host, unprivileged."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_maqet.guest.wake_port import wake_message
from pytest_maqet.guests.initramfs import WAKE_HELPER

EPERM = 1
NOBODY = 65534


def message(number: int = 7, seed: bytes | None = None) -> bytes:
    return wake_message(number, 1.000000002, seed)


def answer(number: int, clock: int, reseed: int) -> bytes:
    return struct.pack("<4sIBB", b"MQW1", number, clock, reseed)


@pytest.fixture
def helper() -> Iterator[Path]:
    """A copy that another user may execute, too: pytest's own folders are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "maqet-wake"
        shutil.copyfile(WAKE_HELPER, path)
        path.chmod(0o755)
        yield path


def once(helper: Path, data: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run it as somebody who may not touch this host's clock, whoever runs the tests."""
    other = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    return subprocess.run(
        [helper, *(arguments or ["--once"])],
        input=data,
        capture_output=True,
        timeout=30,
        check=False,
        **other,
    )


def test_the_program_is_what_the_source_says(tmp_path: Path) -> None:
    if shutil.which("nasm") is None:
        pytest.skip("nasm is not installed")
    source = WAKE_HELPER.with_suffix(".asm")
    subprocess.run(["nasm", "-f", "bin", source, "-o", tmp_path / "made"], check=True, timeout=30)
    assert (tmp_path / "made").read_bytes() == WAKE_HELPER.read_bytes(), (
        f"assemble {source.name} again and check the program in"
    )


def test_who_may_not_is_told_so(helper: Path) -> None:
    done = once(helper, message(seed=os.urandom(64)))
    assert (done.returncode, done.stdout) == (0, answer(7, EPERM, EPERM))


def test_without_a_seed_there_is_no_reseeding(helper: Path) -> None:
    assert once(helper, message(8)).stdout == answer(8, EPERM, 0)


@pytest.mark.parametrize("garbage", [b"x", b"MQWMQW0MQMQMQW", b"\0" * 200, b"MQW1" * 30, message(5)[:50]])
def test_what_is_no_message_is_skipped(helper: Path, garbage: bytes) -> None:
    assert once(helper, garbage + message(9)).stdout == answer(9, EPERM, 0)


def test_only_one_message_is_served(helper: Path) -> None:
    assert once(helper, message(1) + message(2)).stdout == answer(1, EPERM, 0)


def test_a_message_may_come_in_pieces(helper: Path) -> None:
    other = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    with subprocess.Popen(
        [helper, "--once"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, **other
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for byte in message(0xFFFFFFFF):
            process.stdin.write(bytes([byte]))
            time.sleep(0.001)  # most pieces are then read one by one
        assert process.stdout.read() == answer(0xFFFFFFFF, EPERM, 0)


@pytest.mark.parametrize("cut", [b"", message()[:40]], ids=["nothing", "half a message"])
def test_no_message_is_no_success(helper: Path, cut: bytes) -> None:
    done = once(helper, cut)
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_missing_port_and_wrong_usage_are_told(helper: Path) -> None:
    done = once(helper, b"", "/no/such/port")
    assert (done.returncode, done.stderr) == (1, b"maqet-wake: the port cannot be opened\n")
    done = once(helper, b"", "a", "b")
    assert (done.returncode, done.stderr) == (2, b"usage: maqet-wake PORT | --once\n")
