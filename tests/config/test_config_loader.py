"""YAML text into trees with marks: what is read, and what is refused, with libyaml and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_maqet.config.places import MappingNode, Source
from pytest_maqet.config.problems import Problems
from pytest_maqet.config.yaml_loader import NOTHING, load_yaml
from pytest_maqet.errors import ConfigError

SOURCE = Source("x.yaml", Path("/nowhere"), is_file=True)


@pytest.fixture(params=[False, True], ids=["libyaml", "pure"])
def pure(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def load(text: str, *, pure: bool = False, environ: dict[str, str] | None = None) -> Any:
    problems = Problems()
    value = load_yaml(text, SOURCE, problems=problems, environ=environ, pure=pure)
    problems.check()
    return value


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: [1, 2.5, true, null, ~, no, 0x1f, 1:30, 'no', \"x\\ty\"]\nc: {d: {e: []}}",
        "- a\n- - b\n  - c\n- {d: e}",
        "just text",
        "a: |\n  two\n  lines\nb: >\n  folded\n  text\n",
        "base: &base {x: 1, y: 2}\nover: {<<: *base, y: 3}\nlist: [*base, *base]",
        "a: &a {x: 1}\nb: &b {x: 2, z: 3}\nc: {<<: [*a, *b], w: 4}",
        "a: !!str 5\nb: !!int '7'\nc: !!float 1\nd: !!map {e: !!seq [f]}",
        "a: ! 5",
        "é: ñ\n日本: 語\n",
        "a:\nb:   # nothing\n",
        "a: '='\n",
        "? a\n: b\n",
        "%YAML 1.1\n---\na: b\n...\n",
    ],
)
def test_same_as_safe_load(text: str, pure: bool) -> None:
    assert load(text, pure=pure) == yaml.safe_load(text), f"read differently from yaml.safe_load: {text!r}"


def test_keys_are_the_text_that_was_written(pure: bool) -> None:
    assert list(load("no: 1\n1: 2\n0x10: 3\n~: 4\non: 5", pure=pure)) == ["no", "1", "0x10", "~", "on"]


def test_dates_stay_text(pure: bool) -> None:
    assert load("2026-11-23", pure=pure) == "2026-11-23"


def test_empty_text_is_nothing(pure: bool) -> None:
    assert load("# only a comment\n", pure=pure) is NOTHING


def test_every_value_knows_its_place() -> None:
    node = load("a: 1\nb:\n  - no\n  - {c: d}\n")
    assert node.marks["a"].key_place == "x.yaml:1:1"
    assert node.marks["a"].value_place == "x.yaml:1:4"
    assert node["b"].marks[0].value_place == "x.yaml:3:5"
    assert node["b"].marks[0].text == "no", "what was written is kept for error messages"
    assert node["b"][1].marks["c"].value_place == "x.yaml:4:9"
    assert isinstance(node, MappingNode)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "x.yaml:3:1: duplicate key 'a'; it stands at x.yaml:1:1 too"),
        ("a: {b: 1, 'b': 2}", "x.yaml:1:11: duplicate key 'b'; it stands at x.yaml:1:5 too"),
        ("a: !python/object:os.system {}", "x.yaml:1:4: the tag"),
        ("a: !!python/name:os.system x", "x.yaml:1:4: the tag"),
        ("!x {a: 1}", "x.yaml:1:1: the tag '!x' is not known; write plain YAML without tags"),
        ("a: !!binary aGk=", "the tag 'tag:yaml.org,2002:binary' is not known"),
        ("!y a: 1", "the tag '!y' is not known"),
        ("a: !!int x", "x.yaml:1:4: 'x' is no int"),
        ("a: 1\n---\nb: 2", "x.yaml:2:1: a second document begins; a configuration file has one document"),
        ("a: &a [*a]", "x.yaml:1:8: the alias '*a' contains itself"),
        ("a: &a {<<: *a}", "the alias '*a' contains itself"),
        ("a: *b", "x.yaml:1:4: the alias '*b' has no anchor '&b' before it"),
        ("? [1, 2]\n: 3", "x.yaml:1:3: a key has to be text"),
        ("? {a: 1}\n: 3", "x.yaml:1:3: a key has to be text"),
        ("a: {<<: 5}", "'<<' takes a mapping or a list of mappings"),
        ("a: [b", "not valid YAML"),
        ("a: b: c", "not valid YAML: mapping values are not allowed"),
        ("a:\n\t- b", "not valid YAML: found character"),
        ("\x01", "not valid YAML:"),
        ("a: 'b", "not valid YAML:"),
    ],
)
def test_refused(text: str, message: str, pure: bool) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text, pure=pure)
    assert message in str(caught.value), f"for {text!r}"


def test_explicit_alias_as_key_is_refused(pure: bool) -> None:
    with pytest.raises(ConfigError, match="a key has to be text"):
        load("a: &x y\n*x : 1", pure=pure)


def test_variables_go_into_values_only() -> None:
    node = load("a: ${X}\n${X}: '$$5'\nb: [\"${Y:-1}\"]", environ={"X": "a: [1"})
    assert node == {"a": "a: [1", "${X}": "$5", "b": ["1"]}, "a variable is text, whatever is in it"


def test_all_unset_variables_are_named() -> None:
    with pytest.raises(ConfigError) as caught:
        load("a: ${X}\nb: {c: [1, '${Y}', 2]}", environ={})
    assert caught.value.problems == (
        "x.yaml:1:4: a: environment variable 'X' is not set; set it, or write '${X:-default}'",
        "x.yaml:2:12: b.c[1]: environment variable 'Y' is not set; set it, or write '${Y:-default}'",
    )


def test_a_tab_is_told_as_such(pure: bool) -> None:
    with pytest.raises(ConfigError, match=r"x\.yaml:2:1: not valid YAML: [\s\S]*tab"):
        load("vms:\n\tweb: {}\n", pure=pure)
