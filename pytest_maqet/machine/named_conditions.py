"""Conditions by their names: the entries of `ready:` and of `wait.all`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import NotSupported
from pytest_maqet.waiting.engine import Condition
from pytest_maqet.waiting.probed import AgentAnswers, CommandStatus, HttpAnswers, PortClosed
from pytest_maqet.waiting.pushed import GuestPanicked, GuestShutdown, QemuExited

if TYPE_CHECKING:
    from pytest_maqet.machine.core import MachineCore
    from pytest_maqet.machine.waits import Waits

#: What a plain value stands for, by kind of wait, and the further arguments that each takes.
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "console": ("pattern", "fail", "console", "since"),
    "event": ("name", "data"),
    "status": ("status",),
    "port": ("port", "banner"),
    "closed": ("port",),
    "http": ("port", "path", "status"),
    "run": ("command",),
    "succeeds": ("command",),
    "fails": ("command",),
    "agent": (),
    "shutdown": (),
    "exit": (),
    "panic": (),
}
#: Kinds that mean something without an argument.
_OPTIONAL = {"http"}


def named_condition(
    waits: Waits, vm: MachineCore, kind: str, value: Any, deadline: Deadline
) -> Condition[Any]:
    """The condition of this kind; `value` is its main argument, or a mapping of its arguments.

    Raises NotSupported for a kind that there is not, TypeError for arguments that it does not take.
    """
    if kind not in _ARGUMENTS:
        raise NotSupported(
            f"{vm.config.name}: there is no condition {kind!r} to wait for",
            hint=f"there are {', '.join(_ARGUMENTS)}; one `timeout=` is for all of them",
        )
    arguments = _arguments(kind, value)
    life = vm.life
    makers: dict[str, Callable[[], Condition[Any]]] = {
        "console": lambda: waits.console_condition(
            arguments["pattern"],
            arguments.get("fail"),
            arguments.get("since", "mark"),
            arguments.get("console"),
        ),
        "event": lambda: waits.event_condition(arguments["name"], "mark", arguments.get("data") or {}),
        "status": lambda: waits.status_condition(arguments["status"], deadline),
        "port": lambda: waits.port_condition(arguments["port"], arguments.get("banner"), deadline),
        "closed": lambda: PortClosed(life, arguments["port"], deadline),
        "http": lambda: HttpAnswers(
            life,
            arguments.get("port", 80),
            deadline,
            path=arguments.get("path", "/"),
            status=arguments.get("status", 200),
        ),
        "run": lambda: CommandStatus(life, arguments["command"], deadline, wanted=True),
        "succeeds": lambda: CommandStatus(life, arguments["command"], deadline, wanted=True),
        "fails": lambda: CommandStatus(life, arguments["command"], deadline, wanted=False),
        "agent": lambda: AgentAnswers(life, deadline),
        "shutdown": lambda: GuestShutdown(life.vitals),
        "exit": lambda: QemuExited(life.vitals, life.finish),
        "panic": lambda: GuestPanicked(life.vitals),
    }
    return makers[kind]()


def _arguments(kind: str, value: Any) -> dict[str, Any]:
    known = _ARGUMENTS[kind]
    if not known:
        return {}
    arguments = dict(value) if isinstance(value, Mapping) else {known[0]: value}
    unknown = [name for name in arguments if name not in known]
    if unknown:
        raise TypeError(f"the condition {kind!r} takes {', '.join(known)}, not {', '.join(unknown)}")
    if known[0] not in arguments and kind not in _OPTIONAL:
        raise TypeError(f"the condition {kind!r} needs {known[0]!r}")
    if "port" in arguments and not isinstance(arguments["port"], int):
        raise TypeError(f"the condition {kind!r} takes a port as a number, not {arguments['port']!r}")
    return arguments
