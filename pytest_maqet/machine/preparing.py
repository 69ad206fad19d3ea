"""`prepare:`, what is done in a guest once before it is frozen, and `after_clone:`, what each clone does."""

from __future__ import annotations

import traceback
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_maqet.config import PrepareStep
from pytest_maqet.errors import ConfigError, MaqetError, StartError
from pytest_maqet.guest.files import put

if TYPE_CHECKING:
    from pytest_maqet.machine.virtual_machine import VirtualMachine


_OURS = Path(__file__).parent.parent


class StepFailed(StartError):
    """A step of `prepare:` or a command of `after_clone:` failed."""


def prepare(vm: VirtualMachine) -> None:
    """Do every step of the VM's `prepare:` in order; it is ready.

    Raises StartError saying which step failed, with the step's own error as its text; whatever a function of
    the suite's raises is such an error.
    """
    for number, step in enumerate(vm.config.prepare, start=1):
        try:
            _do(vm, step)
        except Exception as error:
            said = error.message if isinstance(error, MaqetError) else f"{type(error).__name__}: {error}"
            raise StepFailed(
                f"{vm.name}: step {number} of `prepare:` failed ({_words(step)}): {said}{_where(error)}",
                hint=error.hint if isinstance(error, MaqetError) else None,
            ) from error


def after_clone(vm: VirtualMachine) -> None:
    """Run every command of the VM's `after_clone:` in order. Raises StartError saying which failed."""
    for command in vm.config.after_clone:
        try:
            vm.run(command)
        except MaqetError as error:
            raise StepFailed(
                f"{vm.name}: a command of `after_clone:` failed ({command}): {error.message}", hint=error.hint
            ) from error


def _do(vm: VirtualMachine, step: PrepareStep) -> None:
    if step.put is not None:
        source, target = step.put
        put(vm.run, Path(source), target)
    elif step.run is not None:
        vm.run(step.run)
    elif step.call is not None:
        module, _, name = step.call.function.partition(":")
        function = getattr(import_module(module), name, None)
        if function is None:
            raise ConfigError(f"the module {module!r} has no function {name!r}")
        function(vm)


def _where(error: Exception) -> str:
    """The suite's own lines that led to an error, in words: a report shows no traceback that is ours."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not Path(frame.filename).is_relative_to(_OURS) and frame.line]
    lines = [f"  {frame.filename}:{frame.lineno}, in {frame.name}: {frame.line}" for frame in theirs]
    return "\n".join(["\ncalled:", *lines]) if lines else ""


def _words(step: PrepareStep) -> str:
    if step.put is not None:
        return f"put {step.put[0]} → {step.put[1]}"
    return f"run {step.run!r}" if step.run is not None else f"call {step.call.function if step.call else ''}"
