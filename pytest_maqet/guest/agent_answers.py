"""What the guest agent answers, taken apart: the guest's word, which may be anything.

The forms are those of QEMU's docs/interop/qemu-ga-ref (guest-exec, guest-exec-status, guest-file-write).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from pytest_maqet.errors import ChannelError
from pytest_maqet.guest.commands import CommandOutcome

#: Process ids, statuses and signals fit into it on every guest.
_LARGEST = 2**32 - 1
#: This much of an answer that is none is shown, in characters.
_SHOWN = 200


class Answer:
    """The value that a request returned; a field that is not what it must be raises ChannelError."""

    def __init__(self, vm_name: str, command: str, value: object) -> None:
        self._vm_name = vm_name
        self._command = command
        self._value = value
        if not isinstance(value, Mapping):
            raise self._wrong("an object")
        self._fields: Mapping[str, object] = value

    def number(self, name: str) -> int:
        """A number from 0 on."""
        value = self._fields.get(name)
        if type(value) is not int or not 0 <= value <= _LARGEST:
            raise self._wrong(f"a number {name!r}")
        return value

    def flag(self, name: str, *, default: bool | None = None) -> bool:
        """True or false; without a default it must be there."""
        value = self._fields.get(name, default)
        if not isinstance(value, bool):
            raise self._wrong(f"true or false for {name!r}")
        return value

    def data(self, name: str) -> bytes:
        """Bytes, written as base64; none where the field is missing."""
        value = self._fields.get(name, "")
        try:
            return base64.b64decode(value if isinstance(value, str) else "?", validate=True)
        except (binascii.Error, ValueError):
            raise self._wrong(f"base64 for {name!r}") from None

    def enabled_commands(self) -> set[str]:
        """The names of the commands that the agent carries out (guest-info)."""
        listed = self._fields.get("supported_commands")
        if not isinstance(listed, list):
            raise self._wrong("a list 'supported_commands'")
        entries = (entry for entry in listed if isinstance(entry, Mapping) and entry.get("enabled") is True)
        return {entry["name"] for entry in entries if isinstance(entry.get("name"), str)}

    def outcome(self) -> CommandOutcome:
        """How a command ended, from a status that says that it has."""
        known = self._fields.get("exitcode") is not None
        status = self.number("exitcode") if known else 128 + self._signal()
        return CommandOutcome(status, self.data("out-data"), self.data("err-data"))

    def _signal(self) -> int:
        return self.number("signal") if "signal" in self._fields else 0

    def _wrong(self, wanted: str) -> ChannelError:
        found = repr(self._value)
        shown = found if len(found) <= _SHOWN else f"{found[:_SHOWN]}… ({len(found)} characters)"
        return ChannelError(
            f"{self._vm_name}: the guest agent's answer to {self._command} must have {wanted}, "
            f"it was: {shown}",
            hint="is that QEMU's guest agent, and unharmed?",
        )
