"""Text of options, there and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_maqet.qemu.quoting import option_text, split_option

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
KEYS = st.from_regex(r"[a-z][a-z0-9.-]{0,10}", fullmatch=True)


def test_values_have_qemus_spelling() -> None:
    values = {"on": True, "off": False, "number": 7, "path": Path("/a,b"), "nothing": None, "empty": ""}
    assert option_text("head", values) == "head,on=on,off=off,number=7,path=/a,,b,empty="


@given(st.dictionaries(KEYS, TEXT, min_size=1))
def test_what_is_written_is_read_back(values: dict[str, str]) -> None:
    assert dict(split_option(option_text(None, values))) == values


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("q35", [(None, "q35")]),
        ("q35,a=b", [(None, "q35"), ("a", "b")]),
        ("a=b,,c,d=e=f", [("a", "b,c"), ("d", "e=f")]),
        ("size=1G,slots=2", [("size", "1G"), ("slots", "2")]),
        ("", [(None, "")]),
    ],
)
def test_options_are_split_at_single_commas(text: str, pairs: list[tuple[str | None, str]]) -> None:
    assert split_option(text) == pairs
