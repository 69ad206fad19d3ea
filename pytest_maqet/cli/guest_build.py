"""`pytest-maqet guest build`: builds `builtin:linux` before a test needs it, or from parts of one's own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from pytest_maqet.errors import StartError
from pytest_maqet.guests.linux_build import linux_guest
from pytest_maqet.guests.linux_parts import LinuxParts, from_apt

SUMMARY = "build builtin:linux into the cache of this host"
DESCRIPTION = """\
Builds the embedded guest builtin:linux and keeps it in the cache of this host, where the first test that
wants it finds it. Without arguments it is made of packages of the distribution (Debian, Ubuntu); on other
hosts name its parts: a kernel with an initramfs made elsewhere, or a kernel with a static busybox and the
kernel's modules.
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Tell the command's parser its arguments and what to run."""
    parser.add_argument("--force", action="store_true", help="build it anew even if there is one")
    parser.add_argument("--kernel", type=Path, metavar="FILE", help="a kernel image (vmlinuz, bzImage)")
    parser.add_argument("--initrd", type=Path, metavar="FILE", help="an initramfs, taken as it is")
    parser.add_argument("--busybox", type=Path, metavar="FILE", help="a static busybox")
    parser.add_argument("--modules", type=Path, metavar="DIRECTORY", help="lib/modules/VERSION of the kernel")
    parser.set_defaults(run=lambda chosen: run(parser, chosen))


def run(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> int:
    """Build the guest; progress goes to stderr, where it lies to stdout."""
    fault = _wrong_combination(chosen)
    if fault:
        parser.error(fault)
    own = chosen.kernel is not None
    guest = linux_guest(
        report=_report,
        parts=_own_parts(chosen) if own else from_apt,
        initrd=chosen.initrd,
        # Who names parts means these, not a guest that was built of others before.
        force=chosen.force or own,
    )
    print(f"builtin:linux is in {guest.kernel.parent}")
    return 0


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _wrong_combination(chosen: argparse.Namespace) -> str | None:
    if chosen.initrd is not None and chosen.busybox is not None:
        return "--initrd and --busybox exclude each other: an initramfs of yours is taken as it is"
    if chosen.kernel is None:
        named = [name for name in ("initrd", "busybox", "modules") if getattr(chosen, name) is not None]
        return f"--{named[0]} needs --kernel, the kernel it is for" if named else None
    if chosen.initrd is None and chosen.busybox is None:
        return "--kernel needs --initrd, or --busybox"
    if chosen.modules is not None and chosen.busybox is None:
        return "--modules needs --busybox: an initramfs of yours is taken as it is"
    return None


def _own_parts(chosen: argparse.Namespace) -> Callable[[Path, Callable[[str], None]], LinuxParts]:
    """What the user named, checked now: a build that fails at its end has cost half a minute."""
    kernel = _file(chosen.kernel, "kernel")
    other = _file(chosen.initrd or chosen.busybox, "initramfs" if chosen.initrd else "busybox")
    modules = _directory(chosen.modules) if chosen.modules is not None else None
    origin = tuple(
        f"{name}={path.absolute()}"
        for name in ("kernel", "initrd", "busybox", "modules")
        if (path := getattr(chosen, name)) is not None
    )
    # With an initramfs of the user's nothing is asked of `busybox`.
    parts = LinuxParts(kernel=kernel, busybox=other.absolute(), modules=modules, origin=origin)
    return lambda _directory, _report: parts


def _file(path: Path, what: str) -> Path:
    # Here, so that the other commands need not wait for pydantic.
    from pytest_maqet.config.paths import missing_file

    fault = missing_file(path)
    if fault is not None:
        raise StartError(f"the {what} {fault}")
    return path


def _directory(path: Path) -> Path:
    if next(path.rglob("*.ko*"), None) is None:
        found = "has no kernel modules (*.ko) in it" if path.is_dir() else "is no directory"
        raise StartError(
            f"the modules directory {path} {found}", hint="name the lib/modules/VERSION of the kernel"
        )
    return path
