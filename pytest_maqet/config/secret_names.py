"""Which environment variables hold secrets: told to `masking` before anything else is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pytest_maqet.config.places import MappingNode, Mark, SequenceNode
from pytest_maqet.config.problems import Problems
from pytest_maqet.masking import MASKS, SHORTEST


def hide_secrets(tree: MappingNode, environ: Mapping[str, str], problems: Problems) -> None:
    """Mask the secrets of all VMs, and of what they inherit, from now on.

    The tree is not validated yet: what is found wrong in it may show a secret. Values of `secrets:` that are
    too short to be masked go to `problems`; a guest's own user and password may be as short as they are.
    """
    vms = tree.get("vms")
    for node in (tree.get("defaults"), *(vms.values() if isinstance(vms, MappingNode) else ())):
        if isinstance(node, MappingNode):
            hide_secrets_of(node, environ, problems)


def hide_secrets_of(vm: MappingNode, environ: Mapping[str, str], problems: Problems) -> None:
    """The same for one VM, for what a marker says of it."""
    for name, mark, key in _names(vm):
        for short in MASKS.hide([name], environ, everywhere=key == "secrets"):
            if key != "secrets":
                continue
            problems.add(
                mark.value_place,
                key,
                f"the value of {short} is too short to be masked",
                f"a secret has {SHORTEST} characters or more; unset the variable where there is none",
            )


def _names(vm: MappingNode) -> Iterator[tuple[str, Mark, str]]:
    """The names of variables, where they were written, and under which key."""
    yield from _texts(vm.get("secrets"), vm.marks.get("secrets"), "secrets")
    guest = vm.get("guest")
    if isinstance(guest, MappingNode):
        yield from _texts(guest.get("password_env"), guest.marks.get("password_env"), "guest.password_env")
        steps = guest.get("login")
        for step in steps if isinstance(steps, SequenceNode) else ():
            if isinstance(step, MappingNode):
                yield from _texts(step.get("send_env"), step.marks.get("send_env"), "guest.login.send_env")


def _texts(node: Any, mark: Mark | None, key: str) -> Iterator[tuple[str, Mark, str]]:
    if isinstance(node, SequenceNode):
        for item, item_mark in zip(node, node.marks, strict=True):
            yield from _texts(item, item_mark, key)
    elif isinstance(node, str) and mark is not None:
        yield node, mark, key
