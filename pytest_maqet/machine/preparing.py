"""`prepare:`, what is done in a guest once before it is frozen, and `after_clone:`, what each clone does."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_maqet.config import PrepareStep
from pytest_maqet.errors import ConfigError, MaqetError, StartError
from pytest_maqet.guest.files import put

if TYPE_CHECKING:
    from pytest_maqet.machine.virtual_machine import VirtualMachine


class StepFailed(StartError):
    """A step of `prepare:` or a command of `after_clone:` failed."""


def prepare(vm: VirtualMachine) -> None:
    """Do every step of the VM's `prepare:` in order; it is ready.

    Raises StartError saying which step failed, with the step's own error as its text.
    """
    for number, step in enumerate(vm.config.prepare, start=1):
        try:
            _do(vm, step)
        except MaqetError as error:
            raise StepFailed(
                f"{vm.name}: step {number} of `prepare:` failed ({_words(step)}): {error.message}",
                hint=error.hint,
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


def _words(step: PrepareStep) -> str:
    if step.put is not None:
        return f"put {step.put[0]} → {step.put[1]}"
    return f"run {step.run!r}" if step.run is not None else f"call {step.call.function if step.call else ''}"
