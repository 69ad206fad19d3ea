"""What the plugin does once there is a configuration: read it, and register everything that works with it."""

from __future__ import annotations

import os
import traceback
from difflib import get_close_matches
from typing import Any

import pytest

from pytest_maqet.config import discover, load_config
from pytest_maqet.errors import ConfigError, MaqetError
from pytest_maqet.reserved_names import reserved_fixture_names
from pytest_maqet.session import MaqetSession


def activate(config: pytest.Config, session: MaqetSession) -> None:
    """Load the configuration and register fixtures and hooks.

    Raises pytest.UsageError (exit status 4) with every fault of the configuration.
    """

    def change_tree(tree: dict[str, Any]) -> None:
        try:
            config.hook.pytest_maqet_config(config=config, tree=tree)
        except (MaqetError, pytest.UsageError, pytest.exit.Exception):
            raise  # says itself what is wrong
        except Exception as error:
            raise _hook_failed(config, error) from error

    settings = session.settings
    try:
        if "config" not in settings.sources:
            discover(session.rootdir)  # raises where both names are there
        session.config = load_config(
            settings.config,
            settings=settings.set,
            change_tree=change_tree,
            reserved=reserved_fixture_names(config),
        )
        session.config.check_files()
        _check_default_vms(session)
        _register(config, session)
        _check_accelerator(session)
    except MaqetError as error:
        raise pytest.UsageError(str(error)) from None


def _hook_failed(config: pytest.Config, error: Exception) -> ConfigError:
    """The error for a hook of the user's that raised: what, and the lines of theirs that led there."""
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first one is ours
    lines = [
        f"  {_short(config, frame.filename)}:{frame.lineno}: {frame.line}"
        for frame in frames
        if f"{os.sep}pluggy{os.sep}" not in frame.filename
    ]
    said = "".join(traceback.format_exception_only(error)).strip()
    return ConfigError("\n".join([f"the hook pytest_maqet_config raised {said}", *lines]))


def _short(config: pytest.Config, path: str) -> str:
    """A path as seen from where pytest was called, when that is shorter."""
    return min(path, os.path.relpath(path, config.invocation_params.dir), key=len)


def _register(config: pytest.Config, session: MaqetSession) -> None:
    from pytest_maqet import collection, lifecycle, vm_fixtures
    from pytest_maqet.interrupts import Interrupts
    from pytest_maqet.reporting import header, masked_ids, masked_reports, sections, summary

    config.pluginmanager.register(vm_fixtures.build_named_fixtures(session), "maqet-named-fixtures")
    for module in (collection, lifecycle, header, sections, summary, masked_ids, masked_reports):
        config.pluginmanager.register(module, f"maqet-{module.__name__.rpartition('.')[2]}")
    config.pluginmanager.register(Interrupts(session), "maqet-interrupts")
    readers = masked_reports.Readers(in_worker=session.run_id is not None)
    config.pluginmanager.register(readers, "maqet-masked-readers")
    if config.pluginmanager.hasplugin("xdist"):
        from pytest_maqet import loadgroup, xdist_support

        config.pluginmanager.register(xdist_support, "maqet-xdist")
        config.pluginmanager.register(loadgroup, "maqet-loadgroup")


def _check_default_vms(session: MaqetSession) -> None:
    """`--maqet-vm` must name VMs of the configuration."""
    known = session.config.vms
    for name in session.settings.vm:
        if name not in known:
            near = get_close_matches(name, known, 1)
            raise ConfigError(
                f"--maqet-vm {name} (from the {session.settings.source('vm')}): there is no such VM; "
                f"there are {', '.join(known)}",
                hint=f"did you mean {near[0]!r}?" if near else None,
            )


def _check_accelerator(session: MaqetSession) -> None:
    """An accelerator that the user names must work; asked in one process only, and where VMs start."""
    wanted = session.settings.accel
    if wanted == "auto" or session.run_id is not None or session.pytest_config.option.collectonly:
        return
    from pytest_maqet.qemu import accelerator
    from pytest_maqet.qemu.binary import find_binary
    from pytest_maqet.qemu.capabilities import capabilities

    for config in session.config.vms.values():
        if config.accel is None:
            binary = find_binary(config)
            accelerator.choose(binary, capabilities(binary), wanted)
            return
