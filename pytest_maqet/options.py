"""The options: one table, each entry a command-line option, an ini key and an environment variable.

`--maqet-timeout-scale`, `maqet_timeout_scale` and `MAQET_TIMEOUT_SCALE` are one setting. The command line
wins over the environment, the environment over the ini file.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_maqet.settings import Settings

#: The configuration files that are looked for in rootdir when none is named.
DISCOVERED = ("maqet.yaml", "maqet.yml")


@dataclass(frozen=True)
class Option:
    """One setting under its three names.

    `kind` is "text", "number", "scale", "size", "bound" (a size or `auto`), "path", "texts", "paths",
    "optional" (an option whose value may be left out) or "flag". `choices` are all values of a closed list.
    `supported` are those of them that do something in this version: another one is refused, never ignored;
    None supports everything, an empty tuple nothing but the default.
    """

    name: str
    help: str
    kind: str = "text"
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    supported: tuple[str, ...] | None = None

    @property
    def flag(self) -> str:
        """The command-line option."""
        return "--maqet-" + self.name.replace("_", "-")

    @property
    def key(self) -> str:
        """The ini key, which is also pytest's `dest`."""
        return "maqet_" + self.name

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "MAQET_" + self.name.upper()


OPTIONS = (
    Option("config", "YAML file with VMs; repeatable, merged left to right "
           "(default: maqet.yaml or maqet.yml in rootdir, where there is one)", "paths", "PATH"),
    Option("set", "Override one key of the YAML, like vms.web.memory=1G; repeatable", "texts", "KEY=VALUE"),
    Option("vm", "What `vm` means in tests without a marker; several parametrise them "
           "(default: the YAML's `default:`)", "texts", "NAME"),
    Option("accel", "Accelerator: auto (default), kvm, hvf or tcg; one that does not work is an error",
           choices=("auto", "kvm", "hvf", "tcg")),
    Option("start", "How VMs come up, unless the YAML says: auto (default: clones where that is possible), "
           "boot or clone", choices=("auto", "boot", "clone")),
    Option("templates", "The kept templates: auto (default), off (VMs boot) or rebuild (made anew)",
           choices=("auto", "off", "rebuild")),
    Option("templates_size", "Disk space for kept templates (default: 20G); unused ones go first",
           "size", "SIZE"),
    Option("keep", "Leave VMs alive after their test: never (default), failed or always",
           choices=("never", "failed", "always"), supported=("never",)),
    Option("attach", "Use a machine that already runs, as NAME=ssh://user@host:port; repeatable", "texts",
           "NAME=URL", supported=()),
    Option("artifacts", "Directory for logs and screenshots of failed tests (default: .maqet/artifacts)",
           "path", "DIR"),
    Option("timeout_scale", "Factor on every timeout: auto (default: 1, or 8 under TCG) or a number", "scale",
           "X"),
    Option("max_memory", "Starts wait until there is room within this much guest memory, which caps -n auto, "
           "too: auto (default: what the host has) or a size", "bound", "SIZE"),
    Option("skips", "Whether a missing capability skips (allow, the default) or fails (fail)",
           choices=("allow", "fail")),
    Option("live", "Show guest console lines as they come, of all VMs or of one", "optional", "NAME",
           supported=()),
    Option("durations", "List the N slowest VM starts in the summary (default: 0)", "number", "N"),
    Option("trace", "Write the run as a Trace Event file", "text", "FILE", supported=()),
    Option("save_failed", "Freeze the VM of a failed test into its artifacts", "flag", supported=()),
)  # fmt: skip

#: pytest's ini type by our kind; every other kind is a string.
_INI_TYPES = {"paths": "paths", "texts": "linelist", "flag": "string"}


def add_options(parser: pytest.Parser) -> None:
    """Declare every option and ini key with pytest."""
    group = parser.getgroup("maqet", "QEMU machines (pytest-maqet)")
    for option in OPTIONS:
        extra: dict[str, Any] = {}
        if option.kind in ("paths", "texts"):
            extra = {"action": "append", "metavar": option.metavar}
        elif option.kind == "flag":
            extra = {"action": "store_const", "const": "true"}
        elif option.kind == "optional":
            extra = {"nargs": "?", "const": "*", "metavar": option.metavar}
        else:
            extra = {"metavar": option.metavar or "|".join(option.choices)}
        group.addoption(option.flag, dest=option.key, default=None, help=option.help, **extra)
        ini_type: Any = _INI_TYPES.get(option.kind, "string")
        parser.addini(option.key, f"see {option.flag}", type=ini_type, default=None)


def read_settings(config: pytest.Config, environ: Mapping[str, str] = os.environ) -> Settings:
    """All options of this run, validated.

    Raises pytest.UsageError naming the option, its source and what is allowed, when a value is wrong or
    belongs to a feature that does not exist yet.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for option in OPTIONS:
        said, source = _said(config, option, environ)
        if said is None:
            continue
        values[option.name] = _checked(config, option, said, source)
        sources[option.name] = source
    values.setdefault("artifacts", config.rootpath / Settings.artifacts)
    values.setdefault("config", _discovered(config.rootpath))
    return Settings(**values, sources=sources)


def _discovered(root: Path) -> tuple[Path, ...]:
    """The configuration file of `root`, or all of them: the loader refuses more than one."""
    return tuple(path for path in (root / name for name in DISCOVERED) if os.path.lexists(path))


def _said(config: pytest.Config, option: Option, environ: Mapping[str, str]) -> tuple[Any, str]:
    """What the user said for an option, None when nothing, and where."""
    value = config.getoption(option.key)
    if value is not None:
        return value, f"command line option {option.flag}"
    text = environ.get(option.variable)
    if text:
        return _from_environment(option, text), f"environment variable {option.variable}"
    value = config.getini(option.key)
    if value:
        return value, f"ini key {option.key}"
    return None, "default"


def _from_environment(option: Option, text: str) -> Any:
    """A variable's text; lists are separated as PATH is (files) or as a shell's words are."""
    if option.kind == "paths":
        return [part for part in text.split(os.pathsep) if part]
    if option.kind != "texts":
        return text
    try:
        return shlex.split(text)
    except ValueError as error:
        raise pytest.UsageError(f"{option.variable}={text!r} cannot be read: {error}") from None


def _checked(config: pytest.Config, option: Option, said: Any, source: str) -> Any:
    """The value in its type, refused when it is wrong or not supported yet."""
    if option.choices and said not in option.choices:
        raise _wrong(option, source, said, f"one of {', '.join(option.choices)}")
    if option.kind == "flag":
        said = _CONVERTERS["flag"](option, source, said)
        if not said:
            return said
    if option.supported is not None and said not in option.supported:
        allowed = f"; use {' or '.join(option.supported)}" if option.supported else ""
        shown = option.flag if option.kind == "flag" else f"{option.flag}={_shown(said)}"
        raise pytest.UsageError(f"{shown} is not supported yet (from the {source}){allowed}.")
    if option.kind in ("path", "paths"):
        base = config.rootpath if source.startswith("ini") else config.invocation_params.dir
        return _paths(option, said, base)
    return _CONVERTERS.get(option.kind, _same)(option, source, said)


def _paths(option: Option, said: Any, base: Path) -> Any:
    """One path, or several, made absolute against `base`; `~` expands."""
    if option.kind == "path":
        return base / Path(said).expanduser()
    return tuple(base / Path(one).expanduser() for one in said)


def _same(_option: Option, _source: str, said: Any) -> Any:
    return said


def _texts(_option: Option, _source: str, said: list[str]) -> tuple[str, ...]:
    return tuple(said)


def _number(option: Option, source: str, said: str) -> int:
    if not said.isdecimal():
        raise _wrong(option, source, said, "a whole number, 0 or more")
    return int(said)


def _scale(option: Option, source: str, said: str) -> float | None:
    """A positive factor; None stands for `auto`."""
    if said == "auto":
        return None
    try:
        scale = float(said)
    except ValueError:
        scale = 0.0
    if not 0 < scale <= 1000:
        raise _wrong(option, source, said, "`auto` or a number above 0, at most 1000")
    return scale


def _size(option: Option, source: str, said: str) -> int:
    """A size with a unit, in bytes."""
    from pytest_maqet.config.value_types import parse_size

    try:
        return parse_size(said)
    except ValueError:
        raise _wrong(option, source, said, "a size such as 20G") from None


def _bound(option: Option, source: str, said: str) -> int | None:
    """A size in bytes; None stands for `auto`."""
    from pytest_maqet.config.value_types import parse_size

    try:
        return None if said == "auto" else parse_size(said)
    except ValueError:
        raise _wrong(option, source, said, "`auto` or a size such as 8G") from None


def _yes_or_no(option: Option, source: str, said: str) -> bool:
    text = said.lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off"):
        return False
    raise _wrong(option, source, said, "true or false")


def _wrong(option: Option, source: str, said: Any, allowed: str) -> pytest.UsageError:
    return pytest.UsageError(f"{option.flag}: {_shown(said)} (from the {source}) is not {allowed}.")


def _shown(said: Any) -> str:
    return ",".join(said) if isinstance(said, list) else repr(said) if said == "" else str(said)


_CONVERTERS: dict[str, Callable[[Option, str, Any], Any]] = {
    "texts": _texts,
    "number": _number,
    "scale": _scale,
    "size": _size,
    "bound": _bound,
    "flag": _yes_or_no,
}
