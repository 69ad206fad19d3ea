"""`prepare:` and `after_clone:`: what is done in a guest before it is frozen, and in each clone."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_maqet.config import load_config
from pytest_maqet.errors import ConfigError


def vm(tmp_path: Path, text: str):
    file = tmp_path / "maqet.yaml"
    file.write_text(f"vms:\n  web:\n    image: builtin:linux\n{text}")
    return load_config([file])


def test_the_host_side_of_a_put_is_relative_to_its_file(tmp_path):
    config = vm(tmp_path, "    prepare:\n      - put: [app, /opt/app]\n      - put: [/etc/hosts, hosts]\n")
    assert [step.put for step in config.vm("web").prepare] == [
        (str(tmp_path / "app"), "/opt/app"),
        ("/etc/hosts", "hosts"),
    ]


def test_steps_keep_their_order(tmp_path):
    config = vm(tmp_path, "    prepare: [{run: one}, {call: 'module:function'}, {run: two}]\n")
    steps = config.vm("web").prepare
    assert [step.run for step in steps] == ["one", None, "two"]
    assert steps[1].call is not None
    assert steps[1].call.function == "module:function"


def test_a_missing_file_is_found_before_anything_starts(tmp_path):
    config = vm(tmp_path, "    prepare:\n      - put: [nowhere, /opt]\n")
    with pytest.raises(
        ConfigError, match=r"maqet\.yaml:5:\d+: vms\.web\.prepare\[0\]\.put\[0\]: .*nowhere does not"
    ):
        config.check_files()


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("{}", "no single thing to do"),
        ("{run: a, call: 'b:c'}", "no single thing to do"),
        ("{put: [a]}", "prepare[0].put"),
        ("{put: a}", "prepare[0].put"),
        ("{call: nothing}", "module:function"),
        ("{copy: a}", "unknown key"),
        ("'run x'", "prepare"),
    ],
)
def test_a_wrong_step_is_refused(tmp_path, step, words):
    with pytest.raises(ConfigError) as caught:
        vm(tmp_path, f"    prepare: [{step}]\n")
    assert words in str(caught.value), str(caught.value)


def test_after_clone_is_a_list_of_commands(tmp_path):
    assert vm(tmp_path, "    after_clone: [one, two]\n").vm("web").after_clone == ("one", "two")
    with pytest.raises(ConfigError, match="after_clone"):
        vm(tmp_path, "    after_clone: [{run: x}]\n")


@pytest.mark.parametrize("start", ["auto", "boot", "clone"])
def test_each_way_to_start_can_be_said(tmp_path, start):
    assert vm(tmp_path, f"    start: {start}\n").vm("web").start == start
