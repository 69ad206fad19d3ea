"""The user's raw `arguments:` over the options we make.

Three kinds of option: those that may be given many times are appended; those QEMU takes once with a
list of keys are merged key by key, the user's value winning; all others replace ours. Options that would take
the VM out of our hands were refused when the configuration was read (`config/arguments.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_maqet.config.arguments import REPEATABLE_OPTIONS
from pytest_maqet.errors import ConfigError
from pytest_maqet.qemu.quoting import Option, option_text, split_option

if TYPE_CHECKING:
    from pytest_maqet.config import VmConfig

#: Taken once, as a list of keys that can be said one by one; with the name of the key that needs no name.
_MERGED = {
    "accel": "accel",
    "action": None,
    "boot": "order",
    "m": "size",
    "msg": None,
    "name": "guest",
    "rtc": None,
    "smp": "cpus",
}
#: Other spellings of the same option.
_SAME = {"M": "machine"}


def said_pairs(config: VmConfig, name: str) -> list[tuple[str | None, str]]:
    """The (key, value) pairs of all raw arguments called `name`, in order."""
    return [
        pair
        for argument in config.arguments
        if _SAME.get(argument.option, argument.option) == name and argument.value
        for pair in split_option(argument.value)
    ]


def merged(config: VmConfig, ours: Sequence[Option]) -> list[Option]:
    """Our options with the user's over them.

    Raises `ConfigError` for one that names another accelerator than the one chosen.
    """
    options = list(ours)
    for argument in config.arguments:
        name = _SAME.get(argument.option, argument.option)
        if name == "accel":
            _check_accelerator(config, options, argument.value or "")
        if name != "machine":  # has become part of the machine's text already
            _put(options, Option(argument.option, argument.value), name)
    return options


def _check_accelerator(config: VmConfig, options: Sequence[Option], said: str) -> None:
    chosen = next((option.value for option in options if option.name == "accel"), None)
    named = next((value for key, value in split_option(said) if key in (None, "accel")), chosen)
    if named != chosen:
        raise ConfigError(
            f"VM '{config.name}': the raw argument '-accel' names {named}, but {chosen} was chosen",
            hint=f"say `accel: {named}`; `arguments:` may only add to it (`{{accel: {{thread: single}}}}`)",
        )


def _put(options: list[Option], said: Option, name: str) -> None:
    if name in REPEATABLE_OPTIONS:
        options.append(said)
        return
    place = next((number for number, option in enumerate(options) if option.name == name), None)
    if place is None:
        options.append(said)
    elif name in _MERGED and said.value and options[place].value:
        options[place] = Option(name, _merge(str(options[place].value), said.value, _MERGED[name]))
    else:
        options[place] = said


def _merge(ours: str, theirs: str, implied: str | None) -> str:
    values = {key or implied or "": value for key, value in split_option(ours)}
    values |= {key or implied or value: value for key, value in split_option(theirs)}
    return option_text(None, values)
