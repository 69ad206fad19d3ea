"""Secrets are found in all their forms, wherever a text or a file is cut, and nothing else is masked."""

from __future__ import annotations

import base64
import html
import json
import os
import shlex
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_maqet import masking
from pytest_maqet.masking import Masks, masked_data
from pytest_maqet.runs.child_environment import child_environment

SECRET = "p@ss, wörd/+=&\"'<x>"


@pytest.fixture
def masks(monkeypatch: pytest.MonkeyPatch) -> Masks:
    monkeypatch.setenv("A_TOKEN", SECRET)
    masks = Masks()
    assert masks.hide(["A_TOKEN", "NOT_SET"], os.environ) == []
    return masks


@pytest.mark.parametrize(
    "text",
    [
        SECRET, repr(SECRET)[1:-1], json.dumps(SECRET)[1:-1], json.dumps(SECRET, ensure_ascii=False)[1:-1],
        quote(SECRET), quote(SECRET, safe=""), quote(SECRET).lower(), html.escape(SECRET),
        SECRET.encode().hex(),
        shlex.quote(SECRET)[1:-1], SECRET.replace(",", ",,"), SECRET[:5] + "\r\n" + SECRET[5:],
    ],
)  # fmt: skip
def test_every_form_is_masked(masks: Masks, text: str) -> None:
    assert masks.masked(f"before {text} after {text}") == "before *** after ***"


@pytest.mark.parametrize("before", ["", "u", "us", "user:"])
def test_base64_of_more_than_the_secret(masks: Masks, before: str) -> None:
    shown = masks.masked(base64.b64encode(f"{before}{SECRET}, and more".encode()).decode())
    assert "***" in shown
    left = [
        base64.b64decode(part + "=" * (-len(part) % 4)) for part in shown.split("***") if len(part) % 4 != 1
    ]
    assert not any(SECRET.encode()[2:6] in one for one in left), shown


def test_lines_of_a_secret_are_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "-----BEGIN KEY-----\nabcdefghijkl\nmnopqrstuvwx\nyz\n-----END KEY-----\n")
    masks = Masks()
    masks.hide(["A_KEY"], os.environ)
    shown = masks.masked("E   abcdefghijkl\r\nE   mnopqrstuvwx\r\n-----BEGIN KEY-----\n")
    assert shown == "E   ***\r\nE   ***\r\n-----BEGIN KEY-----\n"


def test_a_value_stays_masked_and_a_new_one_is_learnt(masks: Masks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "another-one")
    monkeypatch.setenv("NOT_SET", "set-later")
    assert masks.masked(f"{SECRET} another-one set-later") == "*** *** ***"
    monkeypatch.delenv("A_TOKEN")
    assert masks.masked(f"{SECRET} another-one") == "*** ***"
    assert masks.name_in("x=set-later") == "NOT_SET"
    assert masks.name_in("nothing") is None
    assert "another-one" not in repr(masks)


def test_short_values_are_told_and_empty_ones_are_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = Masks()
    assert masks.hide(["EMPTY", "SHORT", "GOOD"], {"EMPTY": "", "SHORT": "abc", "GOOD": "abcd"}) == ["SHORT"]
    assert masks.masked("abc abcd ") == "abc *** "


def test_short_values_are_masked_but_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = Masks()
    masks.hide(["A", "B"], {"A": "root", "B": "correct-horse"})
    monkeypatch.setattr("pytest_maqet.runs.child_environment.MASKS", masks)
    assert masks.masked("password: root") == "password: ***"
    assert masks.name_in("driver=qcow2,node-name=root") is None, "no VM with a disk could be started"
    assert masks.name_in("file=correct-horse") == "B"
    passed = child_environment({"HOME": "/root", "PATH": "/root/bin:/usr/bin", "QEMU_X": "correct-horse"})
    assert passed == {"HOME": "/root", "PATH": "/root/bin:/usr/bin"}


def test_a_short_value_that_nobody_called_a_secret_is_masked_as_a_word() -> None:
    masks = Masks()
    masks.hide(["PASSWORD"], {"PASSWORD": "root"}, everywhere=False)
    for text, shown in {
        "password: root": "password: ***",
        "root:root@host": "***:***@host",
        "'root', \"root\", (root).": "'***', \"***\", (***).",
        "/root/x": "/root/x",
        "cd /root; ls root/": "cd /root; ls root/",
        "root.qcow2 disk-root chroot rooted root_1": "root.qcow2 disk-root chroot rooted root_1",
    }.items():
        assert masks.masked(text) == shown
    assert masks.short() == []
    masks.hide(["TOKEN"], {"TOKEN": "root"})
    assert masks.masked("/root/x, chroot") == "/***/x, ch***", "the user has said that it is one"
    assert masks.short() == ["PASSWORD"], "the variable that had the value first"


@pytest.mark.parametrize("block", [1, 3, 1000])
def test_a_word_is_a_word_wherever_the_file_is_cut(tmp_path, monkeypatch, block: int) -> None:
    monkeypatch.setattr(masking, "_LONGEST_WRAPPED", 0)
    masks = Masks()
    masks.hide(["PASSWORD"], {"PASSWORD": "root"}, everywhere=False)
    data = b"root /root/ root.x -root a-root root xroot root" * 3
    masks.copy([data[at : at + block] for at in range(0, len(data), block)], tmp_path / "f")
    assert (tmp_path / "f").read_text() == masks.masked(data.decode())
    assert (tmp_path / "f").read_text().startswith("*** /root/ root.x -*** a-root *** xroot ")


WORDS = "Zx9Kq2Lm4Pn6Rt8Vw0Yb1Cd3Ef5Gh7Jk"  # 32 characters, each once


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"'{WORDS[:12]}...{WORDS[-13:]}'", "'***...***'"),
        (f"'Bearer {WORDS[:6]}…", "'Bearer ***…"),
        (f"...{WORDS[3:12]} and more", "...*** and more"),
        (f"skipped, then {WORDS[5:25]}!", "skipped, then ***!"),
        (f"{WORDS[:15]} is too short", f"{WORDS[:15]} is too short"),
        (f"{WORDS[:5]}... is too short", f"{WORDS[:5]}... is too short"),
        ("nothing... of it…", "nothing... of it…"),
        (f"{WORDS} is there, and {WORDS[:20]}...", "*** is there, and ***..."),
    ],
)
def test_pieces_of_what_was_cut_are_masked(text: str, shown: str) -> None:
    masks = Masks()
    masks.hide(["T"], {"T": WORDS})
    assert masks.masked(text) == shown


@given(
    st.text(st.sampled_from("abc."), max_size=60), st.text(st.sampled_from("abc"), min_size=16, max_size=40)
)
@settings(max_examples=300, deadline=None)
def test_no_long_piece_is_left(text: str, secret: str) -> None:
    masks = Masks()
    masks.hide(["T"], {"T": secret})
    for shown in (masks.masked(text), masks.masked(f"{text}{secret[3:-3]}{text}")):
        left = [secret[at : at + 16] for at in range(len(secret) - 15) if secret[at : at + 16] in shown]
        assert not left, f"{left} in {shown}"


@given(st.binary(max_size=40), st.integers(1, 9), st.lists(st.integers(0, 60), max_size=8))
@settings(max_examples=100, deadline=None)
def test_a_file_is_masked_wherever_it_is_cut(
    tmp_path_factory, noise: bytes, block: int, places: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masking, "_LONGEST_WRAPPED", 8)
        masks = Masks()
        masks.hide(["T"], {"T": "hush-hush"})
        data = noise.replace(b"hush", b"")
        for place in places:
            data = data[:place] + b"[hush-hush]" + data[place:]
        target = tmp_path_factory.mktemp("log") / "b"
        masks.copy([data[at : at + block] for at in range(0, len(data), block)], target)
    assert target.read_bytes() == data.replace(b"hush-hush", b"***")


def test_data_keeps_its_shape(monkeypatch: pytest.MonkeyPatch, masks: Masks) -> None:
    monkeypatch.setattr(masking, "MASKS", masks)
    data = {"a": [SECRET, 1, None], "b": {"c": (f"x{SECRET}", 2.5)}}
    assert masked_data(data) == {"a": ["***", 1, None], "b": {"c": ("x***", 2.5)}}
