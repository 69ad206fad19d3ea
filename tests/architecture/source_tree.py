"""The package and its tests as source: which modules there are, and what each imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pytest_maqet"
TESTS = ROOT / "tests"
PAGE = ROOT / "docs" / "architecture.md"
#: How a module of the page's table is written: `errors.py`, `config/`, `cli/`.
_ROOM = re.compile(r"`([a-z_*]+(?:\.py|/))`")


def modules() -> list[Path]:
    """Every module of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def files_of_tests() -> list[Path]:
    """Every Python file of the tests."""
    return sorted(TESTS.rglob("*.py"))


def shown(path: Path) -> str:
    """A file as a reader knows it."""
    return str(path.relative_to(ROOT))


@cache
def parsed(path: Path) -> ast.Module:
    """A file's syntax tree."""
    return ast.parse(path.read_text(), str(path))


def dotted(path: Path) -> str:
    """The name that a module is imported by."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def top_level() -> set[str]:
    """What lies directly in the package, as the page writes it; folders without Python code are not in it."""
    files = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    return files | {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}


def room_rows() -> list[list[str]]:
    """The rooms of the architecture page's table, row for row; patterns stand for all that they match."""
    rows: list[list[str]] = []
    for line in PAGE.read_text().splitlines():
        if line.startswith("| `"):
            first = line.split("|")[1]
            rows.append([name for word in _ROOM.findall(first) for name in _matching(word)])
    return rows


def _matching(word: str) -> list[str]:
    if "*" not in word:
        return [word]
    return sorted(path.name for path in PACKAGE.glob(word))


def room_of(module: str) -> str | None:
    """The room that a module of ours is in, as the page writes it; None for the package itself."""
    parts = module.split(".")
    if len(parts) == 1:
        return None
    return f"{parts[1]}/" if (PACKAGE / parts[1]).is_dir() else f"{parts[1]}.py"


def imported(path: Path) -> set[str]:
    """The modules that a module imports when it runs, wherever that stands; not those for types only."""
    found: set[str] = set()
    for node in _running(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{shown(path)}: a relative import; modules are named in full"
            found |= {_module_of(node.module or "", alias.name) for alias in node.names}
    return found


def _module_of(module: str, name: str) -> str:
    """`from package import name` imports a module when there is one of that name."""
    place = ROOT.joinpath(*module.split("."))
    inner = (place / f"{name}.py").is_file() or (place / name / "__init__.py").is_file()
    return f"{module}.{name}" if inner else module


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those below `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for other in child.orelse:
                yield other
                yield from _running(other)
            continue
        yield child
        yield from _running(child)
