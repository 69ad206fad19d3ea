"""What a QEMU program can do, asked once and kept for as long as the program stays the same."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pytest_maqet.errors import StartError
from pytest_maqet.qemu.bounded_run import run_bounded
from pytest_maqet.qemu.kept_answers import digest, keep_answer, only_one_asks, read_answer
from pytest_maqet.qemu.question import WANTED, ask

_KIND = "qemu-capabilities"
#: Seconds for `-help` and `--version`.
_PATIENCE = 30.0

_known: dict[str, Capabilities] = {}
_known_lock = threading.Lock()


@dataclass(frozen=True)
class Machine:
    """A machine type. `alias` is the short name of the newest of its kind ("q35"), where it has one."""

    name: str
    alias: str | None
    default: bool
    deprecated: bool
    cpu_max: int
    ram_id: str | None


@dataclass(frozen=True)
class Capabilities:
    """What one QEMU program offers.

    `version_text` is the version with the distributor's package ("7.2.22 (Debian 1:7.2+dfsg-7)"); `build`
    is a short name of exactly this program file, another one after each upgrade; `target` the guest's
    architecture; `devices` the names `-device` takes; `accelerators` those compiled in; `flags` every option
    of the command line without its dash; `options` the keys of those options that QEMU describes.
    """

    binary: Path
    version: tuple[int, int, int]
    version_text: str
    build: str
    target: str
    machines: tuple[Machine, ...]
    devices: frozenset[str]
    accelerators: tuple[str, ...]
    flags: frozenset[str]
    options: Mapping[str, frozenset[str]]

    def machine(self, name: str) -> Machine | None:
        """The machine type called `name`, or that it is an alias of; None when there is no such type."""
        return next((machine for machine in self.machines if name in (machine.name, machine.alias)), None)

    @property
    def default_machine(self) -> Machine | None:
        """The type QEMU takes when none is named; None where one must be named, as on ARM."""
        return next((machine for machine in self.machines if machine.default), None)

    @property
    def machine_names(self) -> tuple[str, ...]:
        """All names a machine type may be called by, aliases first, sorted."""
        aliases = sorted(machine.alias for machine in self.machines if machine.alias)
        return (*aliases, *sorted(machine.name for machine in self.machines))


def capabilities(binary: Path) -> Capabilities:
    """What `binary` can do: asked by QMP the first time, some 0.1 s, and read from the host cache after that.

    The answer belongs to the file (real path, size, modification time, inode), so an upgrade asks anew.
    Raises `StartError` when the file is no QEMU.
    """
    build = _build(binary)
    with _known_lock:
        if build not in _known:
            _known[build] = _kept_or_asked(binary, build)
        return _known[build]


def _kept_or_asked(binary: Path, build: str) -> Capabilities:
    kept = _kept(binary, build)
    if kept is not None:
        return kept
    with only_one_asks(_KIND, build):
        kept = _kept(binary, build)
        if kept is not None:
            return kept
        asked = _asked(binary, build)
        keep_answer(_KIND, build, _to_json(asked))
        return asked


def _build(binary: Path) -> str:
    try:
        real = binary.resolve(strict=True)
        found = real.stat()
        with real.open("rb") as file:
            compiled = file.read(4) == b"\x7fELF"
    except (OSError, RuntimeError) as error:
        raise StartError(f"the QEMU program {binary} cannot be read: {error}") from error
    identity = [str(real), str(found.st_size), str(found.st_mtime_ns), str(found.st_ino)]
    # Debian's qemu-system-i386 is a shell script that starts another file; it says nothing about that one.
    if not compiled:
        identity.append(_output(binary, "--version"))
    return digest(*identity)[:16]


def _asked(binary: Path, build: str) -> Capabilities:
    version, target, machines, devices, accelerators, options = ask(
        binary,
        ["-machine", "none"],
        [
            ("query-version", {}),
            ("query-target", {}),
            ("query-machines", {}),
            ("qom-list-types", {"implements": "device", "abstract": False}),
            ("qom-list-types", {"implements": "accel", "abstract": False}),
            ("query-command-line-options", {}),
        ],
        hint=WANTED,
    )
    numbers = version["qemu"]
    triple = (numbers["major"], numbers["minor"], numbers["micro"])
    package = version["package"].strip()
    return Capabilities(
        binary=binary,
        version=triple,
        version_text=".".join(map(str, triple)) + (f" ({package.strip('()')})" if package else ""),
        build=build,
        target=target["arch"],
        machines=tuple(sorted((_machine(found) for found in machines), key=lambda found: found.name)),
        devices=frozenset(found["name"] for found in devices),
        accelerators=tuple(sorted(_accelerator_names(accelerators))),
        flags=_flags(_output(binary, "-help")),
        options={
            found["option"]: frozenset(parameter["name"] for parameter in found["parameters"])
            for found in options or []
        },
    )


def _machine(found: Mapping[str, Any]) -> Machine:
    return Machine(
        name=found["name"],
        alias=found.get("alias"),
        default=found.get("is-default", False),
        deprecated=found.get("deprecated", False),
        cpu_max=found.get("cpu-max", 1),
        ram_id=found.get("default-ram-id"),
    )


def _accelerator_names(types: list[Mapping[str, Any]]) -> list[str]:
    # "kvm-accel", "tcg-accel"; the bare parent type "accel" is listed too.
    return [found["name"].removesuffix("-accel") for found in types if found["name"].endswith("-accel")]


def _flags(help_text: str) -> frozenset[str]:
    # A line of an option begins with it: "-smp [[cpus=]n]…", "-hda/-hdb file …", "-h or -help  …".
    heads = re.findall(r"^(--?[\w/-]+(?: or --?[\w-]+)?)", help_text, re.MULTILINE)
    names = (name.lstrip("-") for head in heads for name in re.split(r"/| or ", head))
    return frozenset(names) - {""}


def _output(binary: Path, argument: str) -> str:
    try:
        done = run_bounded([str(binary), argument], _PATIENCE, subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise StartError(f"{binary} {argument} did not end in {_PATIENCE:g} s; is it a QEMU?") from None
    except OSError as error:
        raise StartError(f"the QEMU program {binary} cannot be executed: {error.strerror}") from error
    return done.stdout.decode(errors="replace")


def _kept(binary: Path, build: str) -> Capabilities | None:
    answer = read_answer(_KIND, build)
    try:
        return None if answer is None else _from_json(binary, build, answer)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None  # kept by another version of this package, or damaged


def _to_json(found: Capabilities) -> dict[str, Any]:
    return {
        "version": list(found.version),
        "version_text": found.version_text,
        "target": found.target,
        "machines": [asdict(machine) for machine in found.machines],
        "devices": sorted(found.devices),
        "accelerators": list(found.accelerators),
        "flags": sorted(found.flags),
        "options": {name: sorted(keys) for name, keys in found.options.items()},
    }


def _from_json(binary: Path, build: str, answer: Mapping[str, Any]) -> Capabilities:
    major, minor, micro = (int(number) for number in answer["version"])
    return Capabilities(
        binary=binary,
        version=(major, minor, micro),
        version_text=str(answer["version_text"]),
        build=build,
        target=str(answer["target"]),
        machines=tuple(Machine(**machine) for machine in answer["machines"]),
        devices=frozenset(answer["devices"]),
        accelerators=tuple(answer["accelerators"]),
        flags=frozenset(answer["flags"]),
        options={name: frozenset(keys) for name, keys in answer["options"].items()},
    )
