"""`vm.expecting`: a failure that a test wants to happen."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import DiskError, GuestPanic, MaqetError, QemuDied
from pytest_maqet.waiting.engine import timed_out
from pytest_maqet.waiting.failures import Expectation

if TYPE_CHECKING:
    from pytest_maqet.machine.core import MachineCore


class Caught:
    """What `vm.expecting` caught, once its block is left; `value` is the error, as pytest.raises has it."""

    def __init__(self) -> None:
        self._error: MaqetError | None = None

    @property
    def value(self) -> MaqetError:
        """The expected failure. Raises LookupError inside the block, before it came."""
        if self._error is None:
            raise LookupError("the expected failure has not happened yet: read .value after the with block")
        return self._error


@contextmanager
def expecting(
    vm: MachineCore,
    kind: type[MaqetError] | None,
    match: str | None,
    fail_on: str | None,
    deadline: Callable[[], Deadline],
) -> Iterator[Caught]:
    """See `VirtualMachine.expecting`; the time of `deadline` begins when the block is left."""
    if kind is None and fail_on is None:
        raise TypeError("expecting() needs GuestPanic, QemuDied, or fail_on='a regular expression'")
    wanted = kind or GuestPanic
    if not issubclass(wanted, GuestPanic | QemuDied | DiskError):
        raise TypeError(f"expecting() knows GuestPanic, QemuDied and DiskError, not {wanted.__name__}")
    expectation = Expectation(
        kind=wanted,
        match=re.compile(match, re.MULTILINE) if match else None,
        pattern=re.compile(fail_on, re.MULTILINE) if fail_on else None,
    )
    failures = vm.life.vitals.failures
    vm.call_on_loop(failures.expect, expectation)
    caught = Caught()
    try:
        try:
            yield caught
        except MaqetError as error:
            # A command in flight cannot complete after the failure, so it ended with it: that is the failure.
            if not any(error in failure.raised for failure in expectation.caught):
                raise
        vm.on_loop(_await(vm, expectation, deadline()))
    finally:
        vm.call_on_loop(failures.unexpect, expectation)
    caught._error = expectation.caught[0].error()  # noqa: SLF001 - its maker fills it in


async def _await(vm: MachineCore, expectation: Expectation, deadline: Deadline) -> None:
    vitals = vm.life.vitals
    while not expectation.caught:
        failure = vitals.failures.blocking()
        if failure is not None:
            failure.seen = True
            raise failure.error()
        if not await vitals.changed(deadline):
            what = f"the expected {expectation.kind.__name__}"
            if expectation.match or expectation.pattern:
                pattern = expectation.match or expectation.pattern
                what += f" matching /{pattern.pattern if pattern else ''}/"
            raise timed_out(vitals, what, "it did not happen", deadline)
