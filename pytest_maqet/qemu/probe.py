"""Running a guest of a few bytes, to see whether an accelerator really runs guests.

`/dev/kvm` may open, make machines, and still never get a guest off the ground: nested virtualisation that is
switched on and does not work. Only a guest that ran is proof.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_maqet.qemu.bounded_run import kill_group
from pytest_maqet.qemu.capabilities import Capabilities
from pytest_maqet.runs.child_environment import child_environment

#: `probe_guest.asm`, assembled, without the zeros that fill it up to its signature.
BOOT_SECTOR = bytes.fromhex(
    "fa fc 31 c0 8e d8 be 1b 7c ba f8 03 ac 84 c0 74 03 ee eb f8 b0 fe e6 64 f4 eb fd 6d 61 71 65 74 0a 00"
)
#: What it says.
WORD = b"maqet\n"
#: The firmware reads no boot sector from a smaller disk.
_DISK_SIZE = 1 << 20
#: Seconds for the probe guest: it needs 0.15 s under TCG, less under KVM, and 4 s under a KVM that pretends.
PATIENCE = 1.0
#: Seconds it may take at most when the host is so busy that it has to wait for a processor.
_BUSY_PATIENCE = 10.0
#: Seconds of processor time after which the kernel ends a probe whose owner was killed.
_PROCESSOR_LIMIT = 8
#: Targets of the same family as a host's processor: KVM runs no others.
_NATIVE = {"x86_64": ("x86_64", "i386"), "amd64": ("x86_64", "i386"), "arm64": ("aarch64",)}


@dataclass(frozen=True)
class Verdict:
    """Whether guests run, and the words to say it: "a probe guest ran in 0.11 s"."""

    works: bool
    reason: str


def runs_natively(target: str) -> bool:
    """Whether guests of architecture `target` can use this host's processor."""
    host = os.uname().machine
    return target in _NATIVE.get(host, (host,))


def has_probe_guest(caps: Capabilities) -> bool:
    """Whether there is a probe guest for this program: for PCs only, by now."""
    return caps.target in ("x86_64", "i386") and _machine(caps) is not None and "ide-hd" in caps.devices


def probe(caps: Capabilities, accelerator: str, cpu: str, *, patience: float = PATIENCE) -> Verdict:
    """Run the probe guest with `-accel accelerator -cpu cpu` and tell whether it ran in `patience` seconds.

    The time that a busy host keeps it waiting for a processor does not count.
    """
    started = time.monotonic()
    with _disk() as disk:
        process = subprocess.Popen(
            _argv(caps, accelerator, cpu, disk),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment(),
            pass_fds=[disk],
            process_group=0,
        )
    with process:
        _limit(process.pid)
        try:
            said = _first_words(process, started, patience)
        finally:
            seconds = time.monotonic() - started
            kill_group(process)
        _, stderr = process.communicate()
    if WORD in said:
        return Verdict(works=True, reason=f"a probe guest ran in {seconds:.2f} s")
    if process.returncode != -9:
        return Verdict(works=False, reason=_death(process.returncode, stderr, cpu))
    return Verdict(works=False, reason=f"a probe guest of 512 bytes did not get to run in {seconds:.1f} s")


def _machine(caps: Capabilities) -> str | None:
    return next((name for name in ("q35", "pc") if caps.machine(name)), None)


def _argv(caps: Capabilities, accelerator: str, cpu: str, disk: int) -> list[str]:
    return [
        *(str(caps.binary), "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *(
            "-machine",
            str(_machine(caps)),
            "-accel",
            accelerator,
            "-cpu",
            cpu,
            "-m",
            "16M",
            "-serial",
            "stdio",
        ),
        *("-add-fd", f"fd={disk},set=1"),
        *("-blockdev", "driver=raw,node-name=disk,file.driver=file,file.filename=/dev/fdset/1"),
        *("-device", "ide-hd,drive=disk,bootindex=1"),
    ]


@contextlib.contextmanager
def _disk() -> Iterator[int]:
    disk = os.memfd_create("probe-guest")
    try:
        os.pwrite(disk, BOOT_SECTOR, 0)
        os.pwrite(disk, b"\x55\xaa", 510)
        os.ftruncate(disk, _DISK_SIZE)
        yield disk
    finally:
        os.close(disk)


def _limit(pid: int) -> None:
    # Should this process be killed, the probe ends by itself: the guest resets, or the limit is reached.
    with contextlib.suppress(OSError):
        resource.prlimit(pid, resource.RLIMIT_CPU, (_PROCESSOR_LIMIT, _PROCESSOR_LIMIT))
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))


def _first_words(process: subprocess.Popen[bytes], started: float, patience: float) -> bytes:
    """The end of what the guest said, until its word, its end, or the end of our patience."""
    assert process.stdout is not None
    said = b""
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    while WORD not in said:
        left = started + patience - time.monotonic()
        if left <= 0:
            left = _more(process.pid, started, patience)
        if left <= 0:
            return said
        if poll.poll(left * 1000):
            chunk = os.read(process.stdout.fileno(), 4096)
            if not chunk:
                _await_end(process)
                return said
            said = said[-len(WORD) :] + chunk
    return said


def _await_end(process: subprocess.Popen[bytes]) -> None:
    """QEMU closed its output, so it is ending: let it tell its own status instead of being killed first."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1.0)


def _more(pid: int, started: float, patience: float) -> float:
    """How much longer a probe may take for having waited for a processor; 0 or less when not at all."""
    granted = min(patience + _seconds_kept_waiting(pid), max(_BUSY_PATIENCE, patience))
    return started + granted - time.monotonic()


def _seconds_kept_waiting(pid: int) -> float:
    """How long the process's threads were ready to run and did not; a hung guest's were not ready."""
    waited = 0
    for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        # Nanoseconds on a processor, nanoseconds waiting for one, time slices (Documentation/scheduler/
        # sched-stats.rst of the kernel). The file is missing on kernels without CONFIG_SCHED_INFO.
        with contextlib.suppress(OSError, ValueError, IndexError):
            waited += int(thread.read_text().split()[1])
    return waited / 1e9


def _death(returncode: int, stderr: bytes, cpu: str) -> str:
    lines = [line for line in stderr.decode(errors="replace").splitlines() if "warning:" not in line]
    said = lines[0] if lines else "nothing"
    how = f"signal {-returncode}" if returncode < 0 else f"status {returncode}"
    return f"QEMU ended with {how} when it started a probe guest with -cpu {cpu}, and said: {said}"
