"""Fetches packages of a Debian-like host's own repositories, without root and without installing anything.

`apt-get download` verifies what it fetches against the repositories' signatures; `dpkg-deb -x` unpacks.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_maqet.errors import StartError

#: The longest a question to apt may take, and a download, in seconds.
_QUESTION_SECONDS = 120
_DOWNLOAD_SECONDS = 1800

_DEPENDS = re.compile(r"^\s*\|?(?:Pre)?Depends: ([^<\s]\S*)$", re.MULTILINE)


@dataclass(frozen=True)
class Wanted:
    """A package to have: the first of `names` that the repositories offer, and what it depends on.

    Dependencies are followed only where `follow` matches their name: an initramfs needs a program's
    libraries, but neither its maintainer scripts' helpers nor a boot loader.
    """

    names: tuple[str, ...]
    follow: str = r"^(lib|zlib)"
    needed: bool = True


def require_apt() -> None:
    """Raise `StartError` unless this host has apt and package lists."""
    missing = [tool for tool in ("apt-get", "apt-cache", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise StartError(
            f"builtin:linux is assembled from Debian or Ubuntu packages, and this host has no {missing[0]}"
        )


def resolve(wanted: Sequence[Wanted], directory: Path) -> tuple[str, ...]:
    """The names of all packages to download, sorted. `directory` is ours to write in.

    Raises `StartError` when a needed one is offered by no repository.
    """
    chosen: set[str] = set()
    offered = _offered([name for want in wanted for name in want.names], directory)
    for want in wanted:
        root = next((name for name in want.names if name in offered), None)
        if root is not None:
            _follow(root, re.compile(want.follow), chosen, directory)
        elif want.needed:
            raise StartError(
                f"no package repository of this host offers {' or '.join(want.names)}",
                hint="run 'apt-get update' as root (the package lists may be missing), then try again",
            )
    return tuple(sorted(chosen))


def download(names: Iterable[str], into: Path, report: Callable[[str], None]) -> tuple[str, ...]:
    """Download the packages into the directory `into` and unpack each below `into`/root.

    Gives the packages as `name=version`, sorted. Raises `StartError` with apt's own words.
    """
    names = sorted(names)
    planned = _run(["apt-get", "download", "--print-uris", *names], into, _QUESTION_SECONDS)
    size = sum(int(line.split()[2]) for line in planned.splitlines() if line.startswith("'"))
    report(f"downloading {len(names)} packages, {size / 1e6:.0f} MB")
    _run(["apt-get", "download", *names], into, _DOWNLOAD_SECONDS)
    packages: list[str] = []
    archives = sorted(into.glob("*.deb"))
    report(f"unpacking {len(archives)} packages")
    for archive in archives:
        _run(["dpkg-deb", "-x", str(archive), "root"], into, _QUESTION_SECONDS)
        name, version, _ = archive.name.split("_", 2)
        packages.append(f"{name}={version.replace('%3a', ':')}")
        archive.unlink()
    return tuple(packages)


def _offered(names: Sequence[str], directory: Path) -> set[str]:
    policy = _run(["apt-cache", "policy", *names], directory, _QUESTION_SECONDS)
    offered: set[str] = set()
    name = ""
    for line in policy.splitlines():
        if not line.startswith(" "):
            name = line.rstrip(":")
        elif line.startswith("  Candidate:") and not line.endswith("(none)"):
            offered.add(name)
    return offered


def _follow(root: str, follow: re.Pattern[str], chosen: set[str], directory: Path) -> None:
    level = {root}
    while level:
        chosen |= level
        text = _run(["apt-cache", "depends", "--important", *sorted(level)], directory, _QUESTION_SECONDS)
        level = {name for name in _DEPENDS.findall(text) if follow.match(name)} - chosen


def _apt_options(program: str, directory: Path) -> list[str]:
    if not program.startswith("apt-"):
        return []
    cache = directory / "apt"
    cache.mkdir(exist_ok=True)
    options = {
        # Where apt may keep no cache (images of containers say so), each call reads all lists anew: 3 s.
        "Dir::Cache": str(cache),
        "Dir::Cache::pkgcache": "pkgcache.bin",
        "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
    }
    if os.geteuid() == 0:
        # As root, apt would download as the user _apt, who may not write into our directory.
        options["APT::Sandbox::User"] = "root"
    return [word for name, value in options.items() for word in ("-o", f"{name}={value}")]


def _run(command: list[str], directory: Path, seconds: float) -> str:
    """What `command` prints; it runs in `directory`."""
    try:
        done = subprocess.run(
            [command[0], *_apt_options(command[0], directory), *command[1:]],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StartError(
            f"'{' '.join(command)}' was not done in {seconds:g} s",
            hint="is the network up, and are the repositories reachable?",
        ) from None
    except OSError as error:
        raise StartError(f"'{command[0]}' cannot be run: {error}") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise StartError(
            f"'{' '.join(command)}' ended with status {done.returncode}:\n{said}",
            hint="run 'apt-get update' as root, then try again",
        )
    return done.stdout
