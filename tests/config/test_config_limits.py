"""Limits hold on the open file, before and while it is parsed, and for what is inherited."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_maqet.config import DEFAULT_LIMITS, load_config
from pytest_maqet.config.limits import Limits
from pytest_maqet.errors import ConfigError

#: No refusal may take longer, in seconds of CPU time.
SOON = 5.0


def refused(path: Path, limits: Limits = DEFAULT_LIMITS, **options: object) -> str:
    started = time.process_time()
    with pytest.raises(ConfigError) as caught:
        load_config([path], environ={}, limits=limits, **options)  # type: ignore[arg-type]
    took = time.process_time() - started
    assert took < SOON, f"the refusal took {took:.1f} s"
    return str(caught.value)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "maqet.yaml"
    path.write_text(text)
    return path


def test_hundred_megabytes_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(100 << 20)
    message = refused(path)
    assert "is too big: 104,857,600 bytes; at most 8,388,608 bytes are read" in message


def test_file_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    path = Path("/proc/self/environ")
    if path.stat().st_size != 0:
        pytest.skip("this kernel tells sizes in /proc")
    message = refused(path, replace(DEFAULT_LIMITS, file_bytes=1))
    assert "is too big" in message


def test_alias_bomb(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 15)]
    message = refused(written(tmp_path, "\n".join(lines)))
    assert "more than 200,000 values (an alias counts with all that is in it)" in message


def test_merge_key_bomb(tmp_path: Path) -> None:
    wide = ", ".join(f"k{n}: 1" for n in range(1000))
    text = f"a: &a {{{wide}}}\n" + "\n".join(f"b{n}: {{<<: [{', '.join(['*a'] * 1000)}]}}" for n in range(10))
    assert "more than 200,000 values" in refused(written(tmp_path, text))


@pytest.mark.parametrize("text", ["[" * 1_000_000, "{a: " * 100_000, "- " * 100_000, "a: &a " + "[" * 100])
def test_nesting_bomb(tmp_path: Path, text: str) -> None:
    message = refused(written(tmp_path, text))
    assert "nested too deeply; at most 64 levels are allowed" in message


def test_nesting_through_aliases(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 100)]
    assert "nested too deeply" in refused(written(tmp_path, "\n".join(lines)))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(keys=3), "too many keys; at most 3 in one mapping"),
        (Limits(values=5), "more than 5 values"),
        (Limits(scalar_characters=4), "this text has 5 characters; allowed are 4"),
        (Limits(vms=1), "vms: 2 VMs; at most 1"),
        (Limits(devices=2), "more than 2 storage devices in the whole configuration"),
        (Limits(resolved_values=3), "more than 3 values in the whole configuration"),
        (Limits(file_bytes=10), "is too big"),
    ],
)
def test_each_limit(tmp_path: Path, limits: Limits, message: str) -> None:
    text = "vms:\n  aaa:\n    vga: stdio\n    storage: [{name: a}, {name: b}]\n    memory: 1G\n    cpu: 2\n"
    text += "  bbb: {extends: aaa}\n"
    assert message in refused(written(tmp_path, text), limits)


def test_inherited_devices_count_for_every_vm(tmp_path: Path) -> None:
    devices = ", ".join(f"{{name: d{n}}}" for n in range(1000))
    vms = "\n".join(f"  vm{n}: {{extends: base}}" for n in range(1000))
    message = refused(written(tmp_path, f"vms:\n  base: {{storage: [{devices}]}}\n{vms}\n"))
    assert "more than 20,000 storage devices" in message


def test_too_many_files(tmp_path: Path) -> None:
    path = written(tmp_path, "vms: {web: {}}")
    with pytest.raises(ConfigError, match="101 configuration files were given; at most 100 are read"):
        load_config([path] * 101, environ={})


def test_limits_hold_for_settings_too(tmp_path: Path) -> None:
    path = written(tmp_path, "vms: {web: {}}")
    message = refused(path, settings=[f"vms.web.storage={'[' * 1000}"])
    assert "--maqet-set vms.web.storage=" in message
    assert "nested too deeply" in message


def test_many_problems_are_cut(tmp_path: Path) -> None:
    path = written(tmp_path, "vms: {web: {" + ", ".join(f"bad{n}: 1" for n in range(200)) + "}}")
    with pytest.raises(ConfigError) as caught:
        load_config([path], environ={})
    assert len(caught.value.problems) == 200, "the list of problems is complete"
    assert str(caught.value).endswith("… and 150 more")


def test_too_many_problems_end_the_search(tmp_path: Path) -> None:
    path = written(tmp_path, "vms: {web: {" + ", ".join(f"bad{n}: 1" for n in range(50_000)) + "}}")
    started = time.process_time()
    with pytest.raises(ConfigError, match="after 1,000 problems no more were looked for") as caught:
        load_config([path], environ={})
    assert len(caught.value.problems) == 1_000
    assert time.process_time() - started < 2 * SOON


def test_long_lists_of_names_are_linear(tmp_path: Path) -> None:
    names = ", ".join(f"port{n}" for n in range(50_000))
    path = written(tmp_path, f"vms: {{web: {{serial: [{names}]}}}}")
    started = time.process_time()
    assert len(load_config([path], environ={}).vms["web"].serial) == 50_000
    assert time.process_time() - started < SOON


def test_limits_are_for_all_files_together(tmp_path: Path) -> None:
    files = []
    for number in range(3):
        files.append(tmp_path / f"{number}.yaml")
        files[-1].write_text("vms: {web: {provides: [a, b, c]}}")
    for limits, words in (
        (Limits(values=15), "2.yaml:1:1: more than 15 values"),
        (
            Limits(file_bytes=70),
            "2.yaml is too big: 33 bytes; at most 70 bytes are read of all files together",
        ),
    ):
        with pytest.raises(ConfigError) as caught:
            load_config(files, environ={}, limits=limits)
        assert words in str(caught.value), caught.value


def vms(body: str) -> str:
    return f"vms: {{web: {{{body}}}}}"


def keys(count: int) -> str:
    return ", ".join(f"k{n}: 1" for n in range(count))


PATHS = "".join(f"{{name: a{n}, file: '{'a/' * 2000}..'}}, " for n in range(900))
CHAIN = "".join(f"  vm{n}: {{extends: vm{n - 1}}}\n" for n in range(1, 9_000))
NOBODYS = "".join(f"  vm{n}: {{extends: wm{n}}}\n" for n in range(9_000))
DIRECTIVES = "".join(f"%TAG !a{n}! tag:x\n" for n in range(100_000))
#: Text and what is said of it.
COSTLY = {
    "sexagesimal": (vms(f"memory: {'1:' * 400_000}1"), "allowed is a size"),
    "hexadecimal": (vms(f"memory: 0x{'f' * 390}"), "found 0xfff"),
    "tagged": (vms(f"memory: !!int 0x{'f' * 900_000}"), "is no int: it has 900,002 characters"),
    "path": (vms(f"kernel: '{'a/' * 400_000}..'"), "a path of 800,002 bytes; Linux takes up to 4,095"),
    "paths": (vms(f"storage: [{PATHS}]"), "long patterns and paths more than once"),
    "pattern": (vms(f"ready: [{{console: '{'(a|b)' * 9_000}'}}]"), "45,000 characters; allowed are 10,000"),
    "sets": (vms("ready: [" + r"{console: '[\x00-\uffff]'}, " * 300 + "]"), "long patterns and paths"),
    "extends": (f"vms:\n{NOBODYS}", "there is no VM 'wm0'"),
    "chain": (f"vms:\n  vm0: {{{keys(50_000)}}}\n{CHAIN}", "vm1: more than 200,000 values"),
    "variable": (vms(f"append: '{'${LONG}' * 100_000}'"), "this text has over 1,048,576 characters"),
    "variables": (
        vms("provides: [" + "'${LONG}', " * 9_000 + "]"),
        "the texts have over 8,388,608 characters",
    ),
    "directives": (f"{DIRECTIVES}---\na: b", "'%TAG' names tags of your own"),
    "later directives": (f"a: b\n...\n{DIRECTIVES}", "'%TAG' names tags of your own"),
    "name": (f"vms:\n  ? {'x' * 1_000_000}\n  : {{{keys(2_000)}}}", "not a name"),
}


@pytest.mark.parametrize(("text", "message"), COSTLY.values(), ids=COSTLY)
def test_what_costs_more_than_it_looks(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    started = time.process_time()
    with pytest.raises(ConfigError) as caught:
        load_config([path], environ={"LONG": "x" * 1_000})
    took = time.process_time() - started
    assert took < SOON, f"the refusal took {took:.1f} s"
    assert message in str(caught.value)[:5_000]
    assert max(map(len, caught.value.problems)) < 3_000, "a message shows no megabyte of the file"
