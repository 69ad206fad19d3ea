"""`pytest-maqet clean`: removes what runs have left on this host and nobody needs any more."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence

from pytest_maqet.errors import StartError
from pytest_maqet.host_cache import existing_cache, own_folder
from pytest_maqet.runs.dead_runs import dead_runs
from pytest_maqet.runs.leftover import IN_USE_NOW, Found, Leftover
from pytest_maqet.settings import Settings

SUMMARY = "remove stale runs, stray processes, old templates and images"
DESCRIPTION = """\
Removes what test runs have left on this host and nobody needs any more: the directories of runs whose
users are all gone, keepers and QEMUs that should have ended with them, templates that were never finished,
that nothing can ask for any more or that are over the limit, images and guests that were not used for 30
days. What is in use is never touched, however old it is, nor is what belongs to others. Every pytest run
removes dead runs by itself; this is for the rest, and for looking.
"""
EPILOG = """\
Exit status: 0 all of it is gone (or there was nothing) · 1 something could not be removed, which is named.
"""
#: How long an image or guest is kept without being used, in seconds.
_MONTH = 30 * 86400.0
_FAILED = 1


def declare(parser: argparse.ArgumentParser) -> None:
    """Tell the command's parser its arguments and what to run."""
    parser.epilog = EPILOG
    parser.add_argument("-n", "--dry-run", action="store_true", help="say what would go, and remove nothing")
    parser.add_argument("--templates", action="store_true", help="also every template that nobody uses now")
    parser.add_argument(
        "--images",
        action="store_true",
        help="also every downloaded image and built guest that nobody uses",
    )
    parser.add_argument("--all", action="store_true", help="all of these, and what is remembered of QEMU")
    parser.add_argument(
        "--templates-size",
        metavar="SIZE",
        help="disk space for kept templates (default: MAQET_TEMPLATES_SIZE, else 20G)",
    )
    parser.set_defaults(run=lambda chosen: run(parser, chosen))


def run(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> int:
    """Find, tell and remove; what cannot be removed goes to stderr."""
    limit = _size(parser, chosen.templates_size)
    found = Found.all([dead_runs(), *_kept(chosen, limit)])
    gone, failed = _removed(found.leftovers, dry=chosen.dry_run)
    for line in found.foreign:
        print(f"left alone: {line}")
    for line in found.used:
        print(f"in use: {line}")
    print(_summary(gone, dry=chosen.dry_run))
    return _FAILED if failed else 0


def _size(parser: argparse.ArgumentParser, said: str | None) -> int:
    # Here, so that the other commands need not wait for pydantic.
    from pytest_maqet.config.value_types import parse_size

    source = "--templates-size" if said is not None else "MAQET_TEMPLATES_SIZE"
    text = said if said is not None else os.environ.get("MAQET_TEMPLATES_SIZE")
    if not text:
        return Settings.templates_size
    try:
        return parse_size(text)
    except ValueError:
        parser.error(f"{source}: {text!r} is not a size such as 20G")


def _kept(chosen: argparse.Namespace, limit: int) -> Iterable[Found]:
    """What may go from the cache directory."""
    from pytest_maqet.guests.linux_build import FOLDER as GUESTS
    from pytest_maqet.guests.unneeded import unneeded_guests
    from pytest_maqet.qemu.unneeded import KINDS, unneeded_answers
    from pytest_maqet.storage.download import FOLDER as IMAGES
    from pytest_maqet.storage.unneeded import unneeded_images
    from pytest_maqet.templates.store import FOLDER as TEMPLATES
    from pytest_maqet.templates.store import TemplateStore
    from pytest_maqet.templates.unneeded import unneeded_templates

    try:
        cache = existing_cache()
    except StartError as error:
        yield Found(foreign=[error.message])
        return
    if cache is None:
        return
    all_templates, all_images = chosen.templates or chosen.all, chosen.images or chosen.all
    age = 0.0 if all_images else _MONTH
    if folder := own_folder(cache, TEMPLATES):
        yield unneeded_templates(TemplateStore(folder), limit=limit, everything=all_templates)
    if folder := own_folder(cache, IMAGES):
        yield unneeded_images(folder, unused_for=age)
    if folder := own_folder(cache, GUESTS):
        yield unneeded_guests(folder, unused_for=age)
    for kind in KINDS:
        if folder := own_folder(cache, kind):
            yield unneeded_answers(folder, older_than=0.0 if chosen.all else _MONTH)


def _removed(leftovers: Sequence[Leftover], *, dry: bool) -> tuple[list[Leftover], bool]:
    """Remove each, unless it is only to be told; what is gone, and whether anything is not."""
    gone, failed = [], False
    for leftover in leftovers:
        fault = None if dry else leftover.remove()
        line = f"{leftover.kind} {leftover.path} ({_bytes(leftover.size)}): {leftover.reason}"
        if fault is None:
            print(f"{'would remove' if dry else 'removed'} {line}", flush=True)
            gone.append(leftover)
        else:
            print(f"not removed: {leftover.kind} {leftover.path}: {fault}", file=sys.stderr, flush=True)
            failed = failed or fault != IN_USE_NOW
    return gone, failed


def _summary(gone: Sequence[Leftover], *, dry: bool) -> str:
    if not gone:
        return "nothing to remove"
    counts = Counter(leftover.kind for leftover in gone)
    kinds = ", ".join(f"{count} {_plural(kind, count)}" for kind, count in counts.items())
    return f"{'would remove' if dry else 'removed'} {kinds}: {_bytes(sum(one.size for one in gone))}"


def _plural(kind: str, count: int) -> str:
    if kind == "answers":
        return "kinds of answers" if count > 1 else "kind of answers"
    if kind == "process":
        return "processes" if count > 1 else kind
    return f"{kind}s" if count > 1 else kind


def _bytes(size: int) -> str:
    for unit, length in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= length:
            return f"{size / length:.1f} {unit}"
    return f"{size} bytes"
