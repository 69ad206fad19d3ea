"""The loader against anything: equal to PyYAML's on plain data, and never another error than ConfigError."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_maqet.config import load_config
from pytest_maqet.config.documents import VM_KEYS
from pytest_maqet.config.limits import Limits
from pytest_maqet.config.places import Source
from pytest_maqet.config.problems import Problems
from pytest_maqet.config.yaml_loader import NOTHING, load_yaml
from pytest_maqet.errors import ConfigError

SOURCE = Source("x.yaml", Path("/nowhere"), is_file=True)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(allow_nan=False), TEXTS,
    st.sampled_from(["no", "1:30", "0x1f", "~", "<<", "=", "2026-01-01", "1_000", "0b", "0x", ".inf", "+.e"]),
)  # fmt: skip
PLAIN = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=25,
)
WORDS = st.sampled_from([
    *VM_KEYS, "vms", "defaults", "default", "name", "web", "fixture", "builtin:linux", "1G", "x", "no", "-1",
    "null", "{", "}", "[", "]", ": ", "- ", "\n", "\n  ", "\n    ", "&a ", "*a",
    "<<", "'", '"', "!x ", "---\n", "${X}", "~",
])  # fmt: skip
SETTINGS = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def load(text: str, *, pure: bool) -> Any:
    return load_yaml(text, SOURCE, problems=Problems(), pure=pure, limits=Limits(values=10_000))


def refusal(work: Callable[[], object]) -> ConfigError | None:
    """The ConfigError that `work` raises; any other exception fails the test."""
    try:
        work()
    except ConfigError as error:
        return error
    return None


@given(PLAIN, st.booleans(), st.booleans())
@SETTINGS
def test_plain_data_is_read_as_safe_load_does(data: Any, flow: bool, pure: bool) -> None:
    text = yaml.safe_dump(data, allow_unicode=True, default_flow_style=flow)
    value = load(text, pure=pure)
    assert value == yaml.safe_load(text) == data, f"read differently: {text!r}"


@given(st.text(max_size=60) | st.lists(WORDS, max_size=30).map("".join), st.booleans())
@SETTINGS
def test_junk_is_read_as_pyyaml_does_or_refused(text: str, pure: bool) -> None:
    refused = refusal(lambda: load(text, pure=pure))
    if refused is not None:
        assert str(refused).startswith("x.yaml"), "every refusal names the file"
        return
    value = load(text, pure=pure)
    try:
        # Its two loaders differ at times: a lone "!" is "" for libyaml's and null for the other.
        expected = yaml.load(text, yaml.SafeLoader if pure else yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError):
        return  # PyYAML refuses dates that are none, and unhashable keys
    assert _texts(value) == _texts(expected)


def _texts(value: Any) -> Any:
    """Data with what we read otherwise on purpose made equal: keys are text, dates too."""
    if value is NOTHING:
        return None
    if isinstance(value, dict):
        return len(value)
    if isinstance(value, list):
        return [_texts(item) for item in value]
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return value if isinstance(value, (int, float, bool, type(None))) else "text"


@given(st.dictionaries(st.sampled_from(VM_KEYS), PLAIN, max_size=5), st.sampled_from(VM_KEYS), PLAIN)
@SETTINGS
def test_any_tree_gives_a_config_or_a_config_error(keys: dict[str, Any], changed: str, value: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "m.yaml")
        path.write_text(yaml.safe_dump({"vms": {"web": keys}}, allow_unicode=True), encoding="utf-8")
        refused = refusal(lambda: load_config([path], environ={}))
        if refused is not None:
            assert "Pydantic" not in str(refused), str(refused)
            return
        config = load_config([path], environ={})
        assert config.vms["web"].key
        overridden = refusal(lambda: config.vm("web", {changed: value}, source="marker").key)
        assert overridden is None or overridden.problems


@given(st.binary(max_size=80) | st.lists(WORDS, max_size=40).map(lambda words: "".join(words).encode()))
@SETTINGS
def test_any_file_gives_a_config_or_a_config_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "m.yaml")
        path.write_bytes(data)
        refused = refusal(lambda: load_config([path], environ={}))
        assert refused is None or "m.yaml" in str(refused)
