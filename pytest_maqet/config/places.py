"""Where a value was written: kept beside every value from the file to the error message.

A tree is made of `MappingNode` and `SequenceNode`, which are a dict and a list with one `Mark` per entry.
Nodes are never changed once they are built, so that trees may share them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Source:
    """A file, an option or a marker that values come from.

    `name` is what errors call it; `directory` is what its relative paths are relative to; `is_file` says
    whether a line and a column mean anything.
    """

    name: str
    directory: Path
    is_file: bool = False

    @classmethod
    def of_file(cls, path: Path) -> Source:
        """A configuration file, named relative to the current directory where it lies under it."""
        absolute = Path(os.path.abspath(path))  # noqa: PTH100 - links are followed for no path that is shown
        cwd = Path.cwd()
        shown = absolute.relative_to(cwd) if absolute.is_relative_to(cwd) else absolute
        return cls(str(shown), absolute.parent, is_file=True)

    @classmethod
    def of_words(cls, words: str) -> Source:
        """Something that is no file; its relative paths are relative to the current directory."""
        return cls(words, Path.cwd())


class Mark(NamedTuple):
    """Where one entry of a mapping or sequence was written; lines and columns count from 0.

    `text` is what a plain scalar looked like before YAML made a number, a boolean or null of it, None for
    all other values.
    """

    source: Source
    key_line: int
    key_column: int
    line: int
    column: int
    text: str | None = None

    @property
    def key_place(self) -> str:
        """`file:line:column` of the key."""
        return place(self.source, self.key_line, self.key_column)

    @property
    def value_place(self) -> str:
        """`file:line:column` of the value."""
        return place(self.source, self.line, self.column)


def place(source: Source, line: int, column: int) -> str:
    """`file:line:column` as people count, or the words for a source that is no file."""
    return f"{source.name}:{line + 1}:{column + 1}" if source.is_file else source.name


class MappingNode(dict[str, Any]):
    """A mapping with a mark for each key; `home` is the mark of the mapping itself."""

    __slots__ = ("home", "marks")

    def __init__(self, home: Mark) -> None:
        super().__init__()
        self.home = home
        self.marks: dict[str, Mark] = {}

    def put(self, key: str, value: Any, mark: Mark) -> None:
        """Set one entry; for builders only."""
        self[key] = value
        self.marks[key] = mark


class SequenceNode(list[Any]):
    """A sequence with a mark for each item; `home` is the mark of the sequence itself."""

    __slots__ = ("home", "marks")

    def __init__(self, home: Mark) -> None:
        super().__init__()
        self.home = home
        self.marks: list[Mark] = []

    def put(self, value: Any, mark: Mark) -> None:
        """Append one item; for builders only."""
        self.append(value)
        self.marks.append(mark)


def planted(value: Any, mark: Mark, depth: int = 64) -> Any:
    """Plain Python data (of a marker or a hook) as a tree whose every entry has the same mark.

    Paths become text, tuples sequences; what YAML cannot say is left as it is, for validation to refuse.
    Raises ValueError when it is nested deeper than `depth`, as data that contains itself is.
    """
    if depth == 0:
        raise ValueError("nested too deeply (does it contain itself?)")
    if isinstance(value, Mapping):
        mapping = MappingNode(mark)
        for key, item in value.items():
            mapping.put(str(key), planted(item, mark, depth - 1), mark)
        return mapping
    if isinstance(value, (list, tuple)):
        sequence = SequenceNode(mark)
        for item in value:
            sequence.put(planted(item, mark, depth - 1), mark)
        return sequence
    return str(value) if isinstance(value, PurePath) else value


def replanted(changed: Any, original: Any, mark: Mark, hook: Mark) -> tuple[Any, Mark]:
    """A tree that Python code may have changed, with the old marks where it is as it was.

    `original` is what stood there before, under `mark`; everything new gets the mark `hook`.
    """
    if isinstance(changed, Mapping):
        old = original if isinstance(original, MappingNode) else None
        mapping = MappingNode(old.home if old is not None else hook)
        for key, item in changed.items():
            before, old_mark = (old[key], old.marks[key]) if old is not None and key in old else (None, hook)
            mapping.put(str(key), *replanted(item, before, old_mark, hook))
        return mapping, mark if old is not None else hook
    if isinstance(changed, (list, tuple)):
        olds = original if isinstance(original, SequenceNode) else None
        sequence = SequenceNode(olds.home if olds is not None else hook)
        for index, item in enumerate(changed):
            known = olds is not None and index < len(olds)
            before, old_mark = (
                (olds[index], olds.marks[index]) if olds is not None and known else (None, hook)
            )
            sequence.put(*replanted(item, before, old_mark, hook))
        return sequence, mark if olds is not None else hook
    same = type(changed) is type(original) and changed == original
    return (str(changed) if isinstance(changed, PurePath) else changed), mark if same else hook


def plain(node: Any) -> Any:
    """A tree as new dicts and lists, for Python code to change."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [plain(value) for value in node]
    return node
