"""Which accelerator runs a VM, found by trying."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from pytest_maqet.errors import StartError
from pytest_maqet.qemu.capabilities import Capabilities
from pytest_maqet.qemu.kept_answers import digest, keep_answer, only_one_asks, read_answer
from pytest_maqet.qemu.probe import Verdict, has_probe_guest, probe, runs_natively
from pytest_maqet.qemu.question import QuestionError, ask

_KIND = "accelerator-verdicts"
_KVM = Path("/dev/kvm")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_known: dict[str, Verdict] = {}
_known_lock = threading.Lock()


@dataclass(frozen=True)
class Accelerator:
    """`name` for `-accel`, and why it is this one, in words for a report."""

    name: str
    reason: str


def choose(binary: Path, caps: Capabilities, wanted: str) -> Accelerator:
    """The accelerator to use where `wanted` is "auto", "kvm", "hvf" or "tcg".

    "auto" is the host's own virtualisation where a probe guest really runs under it, else TCG. The verdict is
    kept for the host's boot, the program and the device, so it costs a second once at most.
    Raises `StartError` with the reason when a named one does not work; "auto" fails only on a program
    that was built with none that works.
    """
    if wanted == "auto":
        return _best(binary, caps)
    problem = _problem(caps, wanted)
    if problem is None:
        return Accelerator(wanted, _why(caps, wanted))
    raise StartError(
        f"accelerator '{wanted}' was asked for by name, and does not work here: {problem.reason}",
        hint=f"{problem.cure}; or say `auto` (option --maqet-accel or `accel:`) to fall back to TCG",
    )


@dataclass(frozen=True)
class _Problem:
    reason: str
    cure: str


def _best(binary: Path, caps: Capabilities) -> Accelerator:
    problems: list[str] = []
    for name in ("kvm", "hvf"):
        if name not in caps.accelerators:
            continue
        problem = _problem(caps, name)
        if problem is None:
            return Accelerator(name, _why(caps, name))
        problems.append(f"no {name}: {problem.reason}")
    reason = "; ".join(problems) or f"{binary.name} was built without hardware virtualisation"
    if "tcg" not in caps.accelerators:
        raise StartError(
            f"{binary} can run no guest here: it was built without tcg, and there is {reason}",
            hint="use a QEMU program that was built with TCG",
        )
    return Accelerator("tcg", reason)


def _problem(caps: Capabilities, name: str) -> _Problem | None:
    """What keeps an accelerator from working, or None."""
    if name not in caps.accelerators:
        built = ", ".join(caps.accelerators) or "none"
        return _Problem(f"{caps.binary} was built without it (it has {built})", "use another QEMU program")
    if name == "tcg":
        return None
    if not runs_natively(caps.target):
        host = os.uname().machine
        return _Problem(f"it runs no {caps.target} guests on a {host} host", "use the host's own `arch:`")
    if name == "kvm":
        closed = _closed_device()
        if closed is not None:
            return closed
    verdict = _verdict(caps, name)
    if verdict.works:
        return None
    cure = "correct the host's virtualisation (inside a VM or container: the outer host's, nested)"
    return _Problem(verdict.reason, cure)


def _why(caps: Capabilities, name: str) -> str:
    return "asked for by name" if name == "tcg" else _verdict(caps, name).reason


def _closed_device() -> _Problem | None:
    try:
        os.close(os.open(_KVM, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return _Problem(
            f"there is no {_KVM}",
            "load the kvm_intel or kvm_amd module after switching virtualisation on in the firmware; "
            "in a container pass the device (--device /dev/kvm)",
        )
    except PermissionError:
        return _Problem(
            f"{_KVM} may not be opened by user id {os.geteuid()} ({_mode()})",
            "sudo usermod -aG kvm $USER, then log in again; in CI, a udev rule or chmod 666 /dev/kvm",
        )
    except OSError as error:
        return _Problem(f"{_KVM} cannot be opened: {error.strerror}", "see `dmesg | grep -i kvm`")
    return None


def _mode() -> str:
    try:
        found = _KVM.stat()
    except OSError:
        return "its mode cannot be read"
    return f"mode {found.st_mode & 0o7777:04o}, owner {found.st_uid}, group {found.st_gid}"


def _verdict(caps: Capabilities, name: str) -> Verdict:
    key = _key(caps, name)
    with _known_lock:
        if key not in _known:
            _known[key] = _kept(key) or _tried_and_kept(caps, name, key)
        return _known[key]


def _tried_and_kept(caps: Capabilities, name: str, key: str) -> Verdict:
    with only_one_asks(_KIND, key):
        kept = _kept(key)
        if kept is not None:
            return kept
        verdict = _tried(caps, name)
        keep_answer(_KIND, key, {"works": verdict.works, "reason": verdict.reason})
        return verdict


def _tried(caps: Capabilities, name: str) -> Verdict:
    if has_probe_guest(caps):
        return probe(caps, name, "host")
    machine = caps.machine("virt") or caps.default_machine
    if machine is None:
        return Verdict(works=True, reason="not tried: no machine type to try it with")
    try:
        ask(caps.binary, ["-machine", machine.name, "-accel", name, "-cpu", "host"], [])
    except QuestionError as error:
        return Verdict(works=False, reason=f"QEMU refuses it and says: {error.reason.splitlines()[0]}")
    return Verdict(works=True, reason="QEMU makes a machine with it (no probe guest for this architecture)")


def _key(caps: Capabilities, name: str) -> str:
    parts = [caps.build, str(caps.binary), name]
    with contextlib.suppress(OSError):
        parts.append(_BOOT_ID.read_text().strip())
    with contextlib.suppress(OSError):
        device = _KVM.stat()
        parts.append(f"{device.st_dev}:{device.st_ino}:{device.st_rdev}")
    return digest(*parts)


def _kept(key: str) -> Verdict | None:
    answer = read_answer(_KIND, key)
    if answer is None or not isinstance(answer.get("works"), bool):
        return None
    return Verdict(answer["works"], str(answer.get("reason", "")))
