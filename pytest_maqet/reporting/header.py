"""The line in pytest's header: which configuration, which QEMU, which accelerator and why."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from pytest_maqet.config import VmConfig
from pytest_maqet.errors import MaqetError
from pytest_maqet.host_cache import instead_of_home
from pytest_maqet.masking import MASKS, SHORTEST_TELLING, masked
from pytest_maqet.session import SESSION, MaqetSession
from pytest_maqet.visible_text import visible
from pytest_maqet.worker_count import REASON

#: How many characters the header gives to why there is no faster accelerator.
LONGEST_REASON = 100


def pytest_report_header(config: pytest.Config) -> list[str]:
    """One line, always true: what is printed as accelerator has been tried on this host."""
    session = config.stash[SESSION]
    files = ", ".join(_short(str(path), config) for path in session.settings.config)
    count = len(session.config.vms)
    parts = [f"{files} ({count} VM{'s' * (count != 1)})"]
    if count and not config.option.collectonly:
        parts.append(_qemu(session))
        parts.append(_templates(session))
    lines = ["maqet: " + ", ".join(parts)]
    if REASON in config.stash:
        lines.append(f"maqet: {config.stash[REASON]}")
    if instead := instead_of_home():
        lines.append(f"maqet: {instead}")
    if short := MASKS.short():
        lines.append(
            f"maqet: under {SHORTEST_TELLING} characters, so masked within words and paths, too: "
            f"the value of {', '.join(short)}"
        )
    return [visible(masked(line)) for line in lines]


def _templates(session: MaqetSession) -> str:
    """How VMs come up, as far as options and the store of templates tell."""
    settings = session.settings
    if settings.start == "boot" or settings.templates == "off":
        return f"VMs boot (--maqet-{'start boot' if settings.start == 'boot' else 'templates off'})"
    from pytest_maqet.templates.store import TemplateStore

    try:
        kept = TemplateStore.kept().all()
    except MaqetError as error:
        return f"no templates: {str(error).splitlines()[0]}"
    if settings.templates == "rebuild":
        return "templates are made anew"
    size = sum(one.size for one in kept)
    return f"{len(kept)} template{'s' * (len(kept) != 1)} kept ({size >> 20} MiB)"


def _short(path: str, config: pytest.Config) -> str:
    """A path as seen from where pytest was called, when that is shorter."""
    return min(path, os.path.relpath(path, config.invocation_params.dir), key=len)


def _qemu(session: MaqetSession) -> str:
    """QEMU's version and the accelerator that most VMs get, with the reason."""
    from pytest_maqet.machine.host import TCG_TIMEOUT_SCALE
    from pytest_maqet.qemu import accelerator
    from pytest_maqet.qemu.binary import find_binary
    from pytest_maqet.qemu.capabilities import capabilities

    config = _typical(list(session.config.vms.values()))
    try:
        binary = find_binary(config)
        caps = capabilities(binary)
        found = accelerator.choose(binary, caps, config.accel or session.settings.accel)
    except MaqetError as error:
        return str(error).splitlines()[0]
    scale = session.settings.timeout_scale or (TCG_TIMEOUT_SCALE if found.name == "tcg" else 1)
    times = f", timeouts × {scale:g}" if scale != 1 else ""
    reason = f" ({_brief(found.reason)})" if found.reason else ""
    return f"QEMU {'.'.join(map(str, caps.version))}, {found.name}{reason}{times}"


def _brief(reason: str) -> str:
    """A reason of one line's length: whole clauses, where it has several."""
    if len(reason) <= LONGEST_REASON:
        return reason
    cut = reason[:LONGEST_REASON]
    return f"{cut.rpartition(', ')[0] or cut} …"


def _typical(configs: list[VmConfig]) -> VmConfig:
    """A VM of the most frequent architecture."""
    arch, _count = Counter(config.arch for config in configs).most_common(1)[0]
    return next(config for config in configs if config.arch == arch)
