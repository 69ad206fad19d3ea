"""How the guest is reached, when it is ready, and which console lines are its failure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, model_validator

from pytest_maqet.config.model import Model
from pytest_maqet.config.value_types import (
    FROZEN,
    FilePath,
    Name,
    Number,
    Port,
    Regex,
    Seconds,
    Text,
    Variable,
    fault,
    wrong,
)

Channel = Literal["agent", "ssh", "console"]


class LoginStep(Model):
    """Wait for `expect` on the console, then send `send`, or the value of the variable `send_env`."""

    expect: Regex
    send: str | None = None
    send_env: Variable | None = None

    @model_validator(mode="after")
    def _one(self) -> LoginStep:
        if (self.send is None) == (self.send_env is None):
            raise fault(
                "found " + ("both" if self.send is not None else "neither"), "needed is one of send, send_env"
            )
        return self


def unique(names: tuple[str, ...]) -> tuple[str, ...]:
    """A validator: no name stands there twice."""
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            raise fault(f"{name!r} stands there twice", at=(index,))
        seen.add(name)
    return names


class GuestAccess(Model):
    """How commands get into the guest: the channels to try, in order, and what they need.

    `prompt` is a regular expression for the shell's prompt on the console; `password_env` names the
    environment variable with the password, which is read when it is used.
    """

    connect: Annotated[tuple[Channel, ...], AfterValidator(unique)] = ("agent", "ssh", "console")
    user: Text | None = None
    key: FilePath | None = None
    password_env: Variable | None = None
    prompt: Regex | None = None
    login: tuple[LoginStep, ...] = ()


class ConsoleWait(Model):
    """A regular expression on a console; `fail` ends the wait if it comes first."""

    pattern: Regex
    fail: Regex | None = None
    console: Name | None = None


class PortWait(Model):
    """A listener on a TCP port of the guest, or with `banner` what it must send first."""

    port: Port
    banner: Regex | None = None


class HttpWait(Model):
    """An answer to GET `path` with `status`."""

    port: Port = 80
    path: Annotated[str, Field(pattern="^/")] = "/"
    status: Annotated[Number, Field(ge=100, le=599)] = 200


class EventWait(Model):
    """A QMP event with these members in its data."""

    name: Text
    data: Annotated[Mapping[str, JsonValue], *FROZEN] = Field(default_factory=dict, validate_default=True)


class AgentWait(Model):
    """The guest agent answers."""


class CommandWait(Model):
    """A shell command in the guest that must end with status 0."""

    command: Text


def _function(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", value):
        raise wrong(value, "allowed is 'module:function'")
    return value


class CallWait(Model):
    """A Python function that is called with the VM until it returns something true."""

    function: Annotated[str, AfterValidator(_function)]


class ValueWait(Model):
    """A wait with nothing but a name: `ssh`, `file`, `unit`, `process`."""

    value: Text | None = None


#: For each kind of wait the key that a plain value stands for, None where there is none.
WAIT_KINDS = {
    "console": "pattern",
    "port": "port",
    "http": "path",
    "ssh": None,
    "agent": None,
    "event": "name",
    "file": "value",
    "unit": "value",
    "process": "value",
    "run": "command",
    "call": "function",
}


def _spread(kind: str, *shapes: Any) -> BeforeValidator:
    """A plain value instead of a mapping: `console: ready` is `console: {pattern: ready}`."""
    main = WAIT_KINDS[kind]

    def spread(value: Any) -> Any:
        if isinstance(value, (Mapping, Model)):
            return value
        if value is None or value is True:
            return {}
        if main is None:
            raise wrong(value, f"allowed is just `{kind}`, without a value")
        if kind == "http" and not isinstance(value, str):
            return {"port": value}
        return {main: value}

    return BeforeValidator(spread, json_schema_input_type=Union[shapes])  # noqa: UP007 - made at run time


class ReadyWait(Model):
    """One entry of `ready:`: exactly one kind of wait, and its own time-out in seconds."""

    console: Annotated[ConsoleWait | None, _spread("console", ConsoleWait, str)] = None
    port: Annotated[PortWait | None, _spread("port", PortWait, Port)] = None
    http: Annotated[HttpWait | None, _spread("http", HttpWait, Port, str)] = None
    ssh: Annotated[ValueWait | None, _spread("ssh", ValueWait, Literal[True], None)] = None
    agent: Annotated[AgentWait | None, _spread("agent", AgentWait, Literal[True], None)] = None
    event: Annotated[EventWait | None, _spread("event", EventWait, str)] = None
    file: Annotated[ValueWait | None, _spread("file", ValueWait, str)] = None
    unit: Annotated[ValueWait | None, _spread("unit", ValueWait, str)] = None
    process: Annotated[ValueWait | None, _spread("process", ValueWait, str)] = None
    run: Annotated[CommandWait | None, _spread("run", CommandWait, str)] = None
    call: Annotated[CallWait | None, _spread("call", CallWait, str)] = None
    timeout: Seconds | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> ReadyWait:
        kinds = [kind for kind in WAIT_KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            found = (
                f"found {' and '.join(kinds)} in one wait" if kinds else "found a wait without a condition"
            )
            raise fault(found, f"needed is exactly one of {', '.join(WAIT_KINDS)}")
        return self

    @property
    def kind(self) -> str:
        """What is waited for: `console`, `port`, …"""
        return next(kind for kind in WAIT_KINDS if getattr(self, kind) is not None)

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The condition's arguments, defaults included, but for those that are None."""
        arguments: Mapping[str, Any] = getattr(self, self.kind).model_dump(exclude_none=True)
        return arguments


def _wait(value: Any) -> Any:
    return {value: None} if isinstance(value, str) and value in WAIT_KINDS else value


ReadyValue = Annotated[
    ReadyWait, BeforeValidator(_wait, json_schema_input_type=ReadyWait | Literal["agent", "ssh"])
]

#: Patterns that every VM's consoles are watched for unless `fail_on:` says otherwise, by name.
#: Linux: kernel/panic.c ("Kernel panic - not syncing"), mm/oom_kill.c (the kill of process 1). util-linux's
#: sulogin and systemd's emergency.service ("emergency mode"). initramfs-tools: scripts/functions (panic()
#: drops to a shell with the prompt "(initramfs)"); dracut ("dracut:/#").
FAILURE_PATTERNS = {
    "panic": r"Kernel panic - not syncing",
    "emergency": r"You are in emergency mode|Give root password for maintenance"
    r"|Cannot open access to console, the root account is locked",
    "initramfs": r"^\(initramfs\)|^dracut:/#|Dropping to a shell!|Entering emergency mode",
    "oom-init": r"Out of memory: Killed process 1 |Out of memory and no killable processes",
}


class FailOn(Model):
    """Console patterns (name, regular expression) that are the guest's failure."""

    patterns: tuple[tuple[str, str], ...] = tuple(FAILURE_PATTERNS.items())
