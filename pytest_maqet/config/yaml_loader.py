"""A YAML text as a tree with marks: linear in its size, limited while it is read, and strict.

Like `yaml.safe_load` on plain data, with these differences: keys are always the text that was written, dates
stay text, and duplicate keys, custom tags and second documents are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from pytest_maqet.config.limits import DEFAULT_LIMITS, Limits, Tally
from pytest_maqet.config.places import MappingNode, Mark, SequenceNode, Source, place
from pytest_maqet.config.problems import Problems, config_error
from pytest_maqet.config.scalars import COLLECTION_TAGS, SCALAR_TAGS, plain_scalar, tagged_scalar
from pytest_maqet.config.variables import VariableError, expand
from pytest_maqet.config.yaml_events import events
from pytest_maqet.config.yaml_faults import TOO_DEEP, not_yaml, refuse_tag_directives
from pytest_maqet.errors import ConfigError

#: What an empty document gives: not even null was written.
NOTHING = object()


def load_yaml(
    text: str,
    source: Source,
    *,
    problems: Problems,
    environ: Mapping[str, str] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    tally: Tally | None = None,
    pure: bool = False,
) -> Any:
    """The one document of a YAML text as nodes and scalars; `NOTHING` when there is none.

    `environ` puts variables into all values (not keys); faults with those are added to `problems`.
    `tally` has what other files took already, and gets what this one takes.
    Raises ConfigError for anything that keeps the text from being read.
    """
    builder = _Builder(source, problems, environ, limits, tally or Tally())
    refuse_tag_directives(text, source)
    try:
        for event in events(text, pure=pure):
            handler = _HANDLERS.get(type(event))
            if handler is not None:
                handler(builder, event)
    except yaml.YAMLError as error:
        raise not_yaml(error, source, limits) from None
    except RecursionError:  # PyYAML's pure parser descends with the nesting
        raise config_error([f"{source.name}: nested too deeply; at most {limits.nesting} levels"]) from None
    return builder.root


@dataclass
class _Frame:
    """A collection that is still open.

    `size` and `height` are those of its subtree with aliases counted each time.
    """

    node: MappingNode | SequenceNode
    mark: Mark
    anchor: str | None
    size: int = 1
    height: int = 1
    key: str | None = None
    key_line: int = 0
    key_column: int = 0
    inherited: list[MappingNode] = field(default_factory=list)
    merging: bool = False


class _Builder:
    """Builds the tree from events, with its own stack instead of recursion."""

    def __init__(
        self,
        source: Source,
        problems: Problems,
        environ: Mapping[str, str] | None,
        limits: Limits,
        tally: Tally,
    ) -> None:
        self.root: Any = NOTHING
        self._source = source
        self._problems = problems
        self._environ = environ
        self._limits = limits
        self._stack: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, str | None, int, int]] = {}
        self._tally = tally
        self._documents = 0

    # -- events --------------------------------------------------------------------------------------------

    def document(self, event: DocumentStartEvent) -> None:
        """Only one document is wanted."""
        self._documents += 1
        if self._documents > 1:
            raise self._fault(event, "a second document begins; a configuration file has one document")

    def scalar(self, event: ScalarEvent) -> None:
        """A scalar is a key or a value."""
        text = event.value
        if len(text) > self._limits.scalar_characters:
            raise self._fault(
                event,
                f"this text has {len(text):,} characters; allowed are {self._limits.scalar_characters:,}",
            )
        self._count(event, 1)
        frame = self._stack[-1] if self._stack else None
        if frame is not None and frame.key is None and isinstance(frame.node, MappingNode):
            self._open_key(frame, event)
            return
        value, raw = self._scalar_value(event)
        if event.anchor:
            self._anchors[event.anchor] = (value, raw, 1, 0)
        self._put(event, value, raw, 1, 0)

    def start(self, event: MappingStartEvent | SequenceStartEvent) -> None:
        """A collection opens."""
        if event.tag is not None and event.tag not in COLLECTION_TAGS:
            raise self._fault(event, f"the tag {event.tag!r} is not known; write plain YAML without tags")
        if len(self._stack) >= self._limits.nesting:
            raise self._fault(event, TOO_DEEP.format(self._limits.nesting))
        self._count(event, 1)
        self._need_scalar_key(event)
        mark = self._mark(event, None)
        node = MappingNode(mark) if isinstance(event, MappingStartEvent) else SequenceNode(mark)
        if event.anchor:
            self._anchors[event.anchor] = (NOTHING, None, 0, 0)
        self._stack.append(_Frame(node, mark, event.anchor))

    def end(self, event: MappingEndEvent | SequenceEndEvent) -> None:
        """A collection closes."""
        frame = self._stack.pop()
        if isinstance(frame.node, MappingNode) and frame.inherited:
            frame.node = _with_inherited(frame.node, frame.inherited)
        if frame.anchor:
            self._anchors[frame.anchor] = (frame.node, None, frame.size, frame.height)
        self._put(event, frame.node, None, frame.size, frame.height, frame.mark)

    def alias(self, event: AliasEvent) -> None:
        """The value of an anchor once more; it counts with all that is in it."""
        self._need_scalar_key(event)
        if event.anchor not in self._anchors:
            raise self._fault(event, f"the alias '*{event.anchor}' has no anchor '&{event.anchor}' before it")
        value, raw, size, height = self._anchors[event.anchor]
        if value is NOTHING:
            raise self._fault(event, f"the alias '*{event.anchor}' contains itself")
        self._count(event, size)
        if len(self._stack) + height > self._limits.nesting:
            raise self._fault(event, TOO_DEEP.format(self._limits.nesting))
        self._put(event, value, raw, size, height)

    # -- building ------------------------------------------------------------------------------------------

    def _put(
        self, event: Event, value: Any, raw: str | None, size: int, height: int, mark: Mark | None = None
    ) -> None:
        if not self._stack:
            self.root = value
            return
        frame = self._stack[-1]
        frame.size += size
        if height >= frame.height:
            frame.height = height + 1
        node, key = frame.node, frame.key
        if isinstance(node, SequenceNode):
            node.put(value, mark or self._mark(event, raw))
            return
        assert key is not None
        frame.key = None
        if frame.merging:
            frame.merging = False
            self._inherit(frame, event, value)
            return
        at: Any = mark or event.start_mark
        node.put(key, value, Mark(self._source, frame.key_line, frame.key_column, at.line, at.column, raw))

    def _open_key(self, frame: _Frame, event: ScalarEvent) -> None:
        start: Any = event.start_mark
        key = event.value
        frame.merging = key == "<<" and event.implicit[0]
        assert isinstance(frame.node, MappingNode)
        if key in frame.node and not frame.merging:
            raise self._fault(
                event, f"duplicate key {key!r}; it stands at {frame.node.marks[key].key_place} too"
            )
        if event.tag is not None and event.tag not in SCALAR_TAGS:
            raise self._fault(event, f"the tag {event.tag!r} is not known; write plain YAML without tags")
        if len(frame.node) >= self._limits.keys:
            raise self._fault(event, f"too many keys; at most {self._limits.keys:,} in one mapping")
        if event.anchor:
            self._anchors[event.anchor] = (key, None, 1, 0)
        frame.key, frame.key_line, frame.key_column = key, start.line, start.column

    def _inherit(self, frame: _Frame, event: Event, value: Any) -> None:
        """What `<<` names: a mapping, or a list of them whose earlier ones win."""
        found = value if isinstance(value, SequenceNode) else [value]
        if not all(isinstance(one, MappingNode) for one in found):
            raise self._fault(event, "'<<' takes a mapping or a list of mappings, such as '<<: *name'")
        frame.inherited += found

    def _scalar_value(self, event: ScalarEvent) -> tuple[Any, str | None]:
        """The value, and the text it was written as when it became something else than text."""
        text = event.value
        if self._environ is not None and "$" in text:
            return self._expanded(event, text), None
        if event.tag is None or event.tag == "!":
            if not event.implicit[0]:
                return text, None
            value = plain_scalar(text)
            return value, None if isinstance(value, str) else text
        if event.tag not in SCALAR_TAGS:
            raise self._fault(event, f"the tag {event.tag!r} is not known; write plain YAML without tags")
        try:
            return tagged_scalar(event.tag, text), None
        except ValueError as error:
            raise self._fault(event, str(error)) from None

    def _expanded(self, event: ScalarEvent, text: str) -> str:
        assert self._environ is not None
        try:
            expanded = expand(text, self._environ, self._limits.scalar_characters)
        except VariableError as error:
            self._problems.spoil(self._where(event), self._key_path(), str(error))
            return text
        self._tally.expanded += len(expanded)
        if self._tally.expanded > self._limits.file_bytes:
            raise self._fault(
                event,
                f"the texts have over {self._limits.file_bytes:,} characters with their variables in",
            )
        return expanded

    def _key_path(self) -> str:
        """Where in the tree the value that is just read belongs: `vms.web.serial[1]`."""
        steps = (f".{one.key}" if one.key is not None else f"[{len(one.node)}]" for one in self._stack)
        return "".join(steps).removeprefix(".")

    def _mark(self, event: Event, raw: str | None) -> Mark:
        start: Any = event.start_mark
        return Mark(self._source, start.line, start.column, start.line, start.column, raw)

    def _need_scalar_key(self, event: Event) -> None:
        frame = self._stack[-1] if self._stack else None
        if frame is not None and isinstance(frame.node, MappingNode) and frame.key is None:
            raise self._fault(event, "a key has to be text")

    def _count(self, event: Event, size: int) -> None:
        tally = self._tally
        tally.values += size
        if tally.values > self._limits.values:
            raise self._fault(
                event,
                f"more than {self._limits.values:,} values (an alias counts with all that is in it)",
            )

    def _where(self, event: Event) -> str:
        start: Any = event.start_mark
        return place(self._source, start.line, start.column)

    def _fault(self, event: Event, what: str) -> ConfigError:
        return config_error([f"{self._where(event)}: {what}"])


def _with_inherited(node: MappingNode, inherited: list[MappingNode]) -> MappingNode:
    """The mapping with the keys of `<<` before its own; its own win, then the earlier ones."""
    merged = MappingNode(node.home)
    for one in (*reversed(inherited), node):
        for key, value in one.items():
            merged.put(key, value, one.marks[key])
    return merged


_HANDLERS: Mapping[type[Event], Callable[[_Builder, Any], None]] = {
    DocumentStartEvent: _Builder.document,
    ScalarEvent: _Builder.scalar,
    MappingStartEvent: _Builder.start,
    SequenceStartEvent: _Builder.start,
    MappingEndEvent: _Builder.end,
    SequenceEndEvent: _Builder.end,
    AliasEvent: _Builder.alias,
}
