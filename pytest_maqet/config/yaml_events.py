"""YAML text as a stream of events: libyaml's where PyYAML has it, else PyYAML's own.

Events rather than nodes or values, because limits can be held while they come: libyaml composing deeply
nested nodes overruns the C stack, and an alias bomb is small until it is walked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from yaml.events import Event
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.scanner import Scanner

try:
    from yaml._yaml import CParser as _CParser
except ImportError:  # a PyYAML without libyaml
    _CParser = None  # type: ignore[assignment,misc]


class _PurePythonParser(Reader, Scanner, Parser):
    """PyYAML's parser without its composer and constructor."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)


def events(text: str, *, pure: bool = False) -> Iterator[Event]:
    """The events of a YAML text. `pure` keeps libyaml out.

    Raises yaml.YAMLError where the text is no YAML.
    """
    parser: Any = _PurePythonParser(text) if pure or _CParser is None else _CParser(text)
    try:
        while (event := parser.get_event()) is not None:
            yield event
    finally:
        parser.dispose()
