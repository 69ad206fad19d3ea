"""`maqet_requires`: whether this host, QEMU and guest have what a test needs; skips, or fails, where not."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from pytest_maqet.errors import MaqetError
from pytest_maqet.markers import MARKED_FIXTURES, VERSION, required
from pytest_maqet.session import MaqetSession
from pytest_maqet.vm_selection import choice_for, uses

if TYPE_CHECKING:
    from pytest_maqet.config import VmConfig
    from pytest_maqet.machine import VirtualMachine

_COMPARE: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    ">=": lambda found, wanted: found >= wanted,
    "<=": lambda found, wanted: found <= wanted,
    "==": lambda found, wanted: found == wanted,
    "!=": lambda found, wanted: found != wanted,
    ">": lambda found, wanted: found > wanted,
    "<": lambda found, wanted: found < wanted,
}


def check_host(session: MaqetSession, item: pytest.Item) -> None:
    """Skip the test, before anything is started, where host or QEMU lack what its markers require."""
    for missing in _missing(session, item):
        lack(session, missing)


def check_guest(session: MaqetSession, item: pytest.Item) -> None:
    """As `check_vm`, before the call of a test that has its VM from another fixture than `vm`."""
    if session.marker_was_read or session.started is None or not required(item, "guest"):
        return
    for live in session.started.lives:
        if uses(item, live):
            check_vm(session, item, live.vm)
            return


def check_vm(session: MaqetSession, item: pytest.Item, vm: VirtualMachine) -> None:
    """Skip the test where the guest that it got lacks a command that its markers require."""
    for command in required(item, "guest"):
        found = vm.run(["sh", "-c", 'command -v "$1"', "sh", str(command)], check=False)
        if found.returncode:
            lack(session, f"{vm.name} has no command {command!r} in its guest")


def lack(session: MaqetSession, missing: str) -> NoReturn:
    """Skip, or fail with `--maqet-skips fail`, for a missing capability."""
    if session.settings.skips == "fail":
        pytest.fail(f"{missing} (a failure because of --maqet-skips=fail)", pytrace=False)
    pytest.skip(missing)


def _missing(session: MaqetSession, item: pytest.Item) -> Iterator[str]:
    """What this host lacks of a test's requirements, in words."""
    for program in required(item, "binary"):
        if shutil.which(str(program)) is None:
            yield f"there is no program {program!r} on PATH"
    machines = [str(arch) for arch in required(item, "arch")]
    if machines and platform.machine() not in machines:
        yield f"the host is {platform.machine()}, not {' or '.join(machines)}"
    versions, kvm = required(item, "qemu"), required(item, "kvm")
    words = required(item, "provides")
    if versions or kvm or words:
        config = _config_of(session, item)
        yield from _missing_words(config, words)
        yield from _missing_in_qemu(config, versions, wants_kvm=bool(kvm))


def _config_of(session: MaqetSession, item: pytest.Item) -> VmConfig:
    """The VM that the requirements speak of: the test's own, or the first that its fixtures name."""
    names: tuple[str, ...] = tuple(getattr(item, "fixturenames", ()))
    for name in names:
        if name in session.named:
            return session.config.vms[session.named[name]]
    scope = next((MARKED_FIXTURES[name] for name in names if name in MARKED_FIXTURES), "function")
    choice = choice_for(session, item, scope)
    return session.configured(choice)


def _missing_words(config: VmConfig, words: list[Any]) -> Iterator[str]:
    provided = tuple(getattr(config, "provides", None) or ())
    for word in words:
        if word not in provided:
            yield f"{config.name} does not provide {word!r}"


def _missing_in_qemu(config: VmConfig, versions: list[Any], *, wants_kvm: bool) -> Iterator[str]:
    from pytest_maqet.qemu import accelerator
    from pytest_maqet.qemu.binary import find_binary
    from pytest_maqet.qemu.capabilities import capabilities

    try:
        binary = find_binary(config)
        caps = capabilities(binary)
    except MaqetError as error:
        yield str(error)
        return
    for version in versions:
        match = VERSION.fullmatch(str(version))
        assert match is not None, "checked when the test was collected"
        compare, wanted = _COMPARE[match[1]], tuple(map(int, match[2].split(".")))
        if not compare(caps.version[: len(wanted)], wanted):
            yield f"QEMU is {'.'.join(map(str, caps.version))}, not {version}"
    if wants_kvm:
        found = accelerator.choose(binary, caps, "auto")
        if found.name != "kvm":
            yield f"KVM does not work here: {found.reason}"
