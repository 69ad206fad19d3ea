"""What every module keeps to: names, size, docstrings, and ways of starting programs that are not used."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

from source_tree import PACKAGE, PAGE, files_of_tests, modules, parsed, room_rows, shown, top_level

LONGEST_MODULE = 300
LONGEST_TEST = 400
#: Names that say nothing about what is in a module.
VAGUE = {"common", "helpers", "misc", "tools", "util", "utils"}


def test_the_page_names_every_room() -> None:
    named = Counter(room for row in room_rows() for room in row)
    there = top_level()
    assert not there - set(named), f"docs/architecture.md has no room for {sorted(there - set(named))}"
    assert not set(named) - there, (
        f"docs/architecture.md names what is not there: {sorted(set(named) - there)}"
    )
    twice = [room for room, count in named.items() if count > 1]
    assert not twice, f"docs/architecture.md has two rows for {twice}"


def test_the_page_names_no_module_that_is_not_there() -> None:
    files = {path.name for path in modules()} | {path.name for path in files_of_tests()}
    words = PAGE.read_text().replace("/", " ").split("`")[1::2]
    gone = [
        word
        for quoted in words
        for word in quoted.split()
        if word.endswith(".py") and "*" not in word and word not in files
    ]
    assert not gone, f"docs/architecture.md speaks of {gone}, and there is no such module"


def test_no_module_is_named_like_a_package() -> None:
    packages = {path.parent.name for path in PACKAGE.rglob("__init__.py")}
    both = [shown(path) for path in modules() if path.stem in packages]
    assert not both, f"modules with the name of a package: {both}"


def test_no_vague_names() -> None:
    vague = [shown(path) for path in PACKAGE.rglob("*") if path.stem in VAGUE]
    assert not vague, f"a name that does not say what is in it: {vague}"


def test_every_module_says_what_it_is() -> None:
    silent = [shown(path) for path in modules() if not ast.get_docstring(parsed(path))]
    assert not silent, f"modules without a docstring: {silent}"


def test_sizes() -> None:
    for files, longest in ((modules(), LONGEST_MODULE), (files_of_tests(), LONGEST_TEST)):
        sizes = {shown(path): len(path.read_text().splitlines()) for path in files}
        long = {name: size for name, size in sizes.items() if size >= longest}
        assert not long, f"files of {longest} lines or more: {long}"


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file(), "type checkers would ignore our annotations (PEP 561)"


def test_no_shell_and_no_code_between_fork_and_exec() -> None:
    found = [
        f"{shown(path)}:{node.lineno}: {words}"
        for path in modules()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call)
        for words in _dangers(node)
    ]
    assert not found, "programs are started with a list of arguments, and nothing else:\n" + "\n".join(found)


def _dangers(call: ast.Call) -> list[str]:
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    found = ["preexec_fn="] if "preexec_fn" in options else []
    found += ["shell="] if options.get("shell", "False") != "False" else []
    name = ast.unparse(call.func)
    shells = ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "eval", "exec")
    return [*found, name] if name in shells else found


def test_tests_are_functions() -> None:
    found = [
        f"{shown(path)}:{node.lineno}: class {node.name}"
        for path in files_of_tests()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef) and _is_test_class(node)
    ]
    assert not found, "tests are functions:\n" + "\n".join(found)


def _is_test_class(node: ast.ClassDef) -> bool:
    if node.name.startswith("Test") or "TestCase" in " ".join(map(ast.unparse, node.bases)):
        return True
    return any(isinstance(one, ast.FunctionDef) and one.name.startswith("test_") for one in node.body)


def test_tests_use_the_real_thing() -> None:
    found = [
        f"{shown(path)}:{node.lineno}: {ast.unparse(node)}"
        for path in files_of_tests()
        for node in ast.walk(parsed(path))
        if isinstance(node, (ast.Import, ast.ImportFrom)) and _mocks(node)
    ]
    assert not found, "tests use real QEMU, sockets and processes:\n" + "\n".join(found)


def _mocks(node: ast.Import | ast.ImportFrom) -> bool:
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{name}" for name in names]
    return any(name.startswith(("unittest.mock", "mock.", "pytest_mock")) or name == "mock" for name in names)


def test_test_files_have_names_of_their_own() -> None:
    names = Counter(path.name for path in files_of_tests() if path.name != "conftest.py")
    twice = [name for name, count in names.items() if count > 1]
    assert not twice, f"pytest imports only one of each: {twice}"
    from_conftest = [
        shown(path)
        for path in files_of_tests()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom) and node.module == "conftest"
    ]
    assert not from_conftest, f"which of all conftest.py would be imported is chance: {from_conftest}"


def test_folders_of_tests_have_no_init() -> None:
    assert not list(Path(PACKAGE.parent / "tests").rglob("__init__.py")), "tests are no package"
