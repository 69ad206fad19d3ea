"""One policy for paths: where they are relative to, `~`, `..`, links, a root, and files that are not there."""

# ruff: noqa: E501 - messages and YAML stand as users see them
from __future__ import annotations

from pathlib import Path

import pytest

from pytest_maqet.config import VmConfig, load_config
from pytest_maqet.config.path_assertions import assert_resolves
from pytest_maqet.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def web(*files: Path, **options: object) -> VmConfig:
    return load_config(files, environ={}, **options).vms["web"]  # type: ignore[arg-type]


def test_relative_to_the_file_that_wrote_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path / "base/maqet.yaml",
        "defaults: {initrd: images/initrd}\n"
        "vms: {web: {image: ./root.qcow2, kernel: k, storage: [{name: a, file: a.img}, {name: b, path: b.img}]}}",
    )
    write(
        tmp_path / "ci/ci.yaml",
        "vms: {web: {kernel: k, storage: [{name: a, backing_file: ../base/c.qcow2}]}}",
    )
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "base/a.img", "")
    vm = web(Path("base/maqet.yaml"), Path("ci/ci.yaml"), settings=["vms.web.firmware=fw.bin"])
    assert_resolves(
        vm,
        {
            "image": "base/root.qcow2",
            "initrd": "base/images/initrd",
            "kernel": "ci/k",
            "storage[0].file": "base/a.img",
            "storage[1].file": "base/b.img",
            "firmware": "fw.bin",
        },
        base=tmp_path,
    )
    assert vm.storage[0].backing_file == tmp_path / "base/c.qcow2"


def test_missing_disk_with_a_recipe_begins_as_its_backing_file(tmp_path: Path) -> None:
    vm = web(write(tmp_path / "m.yaml", "vms: {web: {storage: [{name: a, file: gone, backing_file: b}]}}"))
    assert_resolves(vm, {"storage[0].backing_file": tmp_path / "b"})


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    vm = web(write(tmp_path / "m.yaml", "vms: {web: {image: ~/x.qcow2, binary: ~/qemu}}"))
    assert_resolves(vm, {"image": tmp_path / "home/x.qcow2"})
    assert vm.binary == str(tmp_path / "home/qemu")


def test_unknown_home(tmp_path: Path) -> None:
    file = write(tmp_path / "m.yaml", "vms: {web: {image: ~no-such-user/x}}")
    with pytest.raises(
        ConfigError, match=r"m.yaml:1:20: vms\.web\.image: found '~no-such-user/x', but there is no such"
    ):
        web(file)


def test_variables_in_paths(tmp_path: Path) -> None:
    file = write(tmp_path / "m.yaml", 'vms: {web: {image: "${DIR:-images}/x, y.qcow2"}}')
    assert_resolves(web(file), {"image": tmp_path / "images/x, y.qcow2"})


@pytest.mark.parametrize("image", ["builtin:nano", "{fixture: x}"])
def test_what_is_no_path(tmp_path: Path, image: str) -> None:
    assert (
        web(
            write(
                tmp_path / "m.yaml",
                f"vms: {{web: {{image: '{image}'}}}}".replace("'{", "{").replace("}'", "}"),
            )
        ).paths()
        == {}
    )


def test_program_names_are_looked_for_later(tmp_path: Path) -> None:
    file = write(tmp_path / "m.yaml", "vms: {web: {binary: qemu-system-x86_64}, b: {binary: ./q}}")
    config = load_config([file], environ={})
    assert config.vms["web"].binary == "qemu-system-x86_64"
    assert config.vms["b"].binary == str(tmp_path / "q")


def test_dots_go_up_from_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "far/away").mkdir(parents=True)
    (tmp_path / "near").symlink_to("far/away")
    vm = web(write(tmp_path / "m.yaml", "vms: {web: {image: near/../x, kernel: a/./b//c}}"))
    assert_resolves(vm, {"image": tmp_path / "far/x", "kernel": tmp_path / "a/b/c"})


@pytest.mark.parametrize(
    ("path", "ok"),
    [
        ("images/x", True),
        ("../project/x", True),
        ("../x", False),
        ("images/../../x", False),
        ("/etc/passwd", False),
        ("out/x", False),
        ("out", False),
        ("in/x", True),
        ("..project", True),
    ],
)
def test_root(tmp_path: Path, path: str, ok: bool) -> None:
    project = tmp_path / "project"
    file = write(project / "m.yaml", f"vms: {{web: {{image: {path}}}}}")
    (tmp_path / "project2").mkdir()
    (project / "out").symlink_to(tmp_path / "project2")
    (project / "images").mkdir()
    (project / "in").symlink_to("images")
    if ok:
        web(file, root=project)
        return
    with pytest.raises(
        ConfigError, match=r"m\.yaml:1:20: vms\.web\.image: '.*' leads to .*, out of the root"
    ) as caught:
        web(file, root=project)
    assert str(project) in str(caught.value)


def test_root_from_the_environment(tmp_path: Path) -> None:
    file = write(tmp_path / "a/m.yaml", "vms: {web: {image: ../x}}")
    with pytest.raises(ConfigError, match="out of the root"):
        load_config([file], environ={"MAQET_ROOT": str(tmp_path / "a")})
    load_config([file], environ={"MAQET_ROOT": str(tmp_path)})
    with pytest.raises(ConfigError, match="is no directory"):
        load_config([file], environ={"MAQET_ROOT": str(tmp_path / "none")})


def test_root_holds_for_overrides_and_arguments(tmp_path: Path) -> None:
    file = write(tmp_path / "a/m.yaml", "vms: {web: {}}")
    config = load_config([file], environ={}, root=tmp_path / "a")
    with pytest.raises(ConfigError, match=r"marker: vms\.web\.image: '/etc/passwd' leads to"):
        config.vm("web", {"image": "/etc/passwd"}, source="marker")
    file.write_text("vms: {web: {arguments: [{drive: {file: ../x}}]}}")
    with pytest.raises(ConfigError, match=r"vms.web.arguments\[0\].drive.file: '../x' leads to"):
        load_config([file], environ={}, root=tmp_path / "a")


def test_circle_of_links_under_a_root(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    file = write(tmp_path / "m.yaml", "vms: {web: {image: loop/x}}")
    with pytest.raises(ConfigError, match="'loop/x' leads through a circle of symbolic links"):
        web(file, root=tmp_path)


def test_files_are_checked_on_request(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("gone")
    write(tmp_path / "file", "x")
    text = (
        "vms:\n"
        "  web:\n"
        "    image: missing.qcow2\n"
        "    kernel: dir\n"
        "    initrd: loop\n"
        "    firmware: dangling\n"
        "    storage:\n"
        "      - {name: a, file: file/x}\n"
        "      - {name: b, path: none}\n"
        "      - {name: c, file: file}\n"
        "  good: {kernel: file}\n"
    )
    config = load_config([write(tmp_path / "m.yaml", text)], environ={})
    config.check_files(["good"])
    with pytest.raises(ConfigError) as caught:
        config.check_files()
    found = [line.replace(f"{tmp_path}/", "") for line in caught.value.problems]
    assert sorted(found) == [
        "m.yaml:3:12: vms.web.image: missing.qcow2 does not exist",
        "m.yaml:4:13: vms.web.kernel: dir is a directory, not a file",
        "m.yaml:5:13: vms.web.initrd: loop is a circle of symbolic links",
        "m.yaml:6:15: vms.web.firmware: dangling is a dangling link to gone",
        "m.yaml:8:25: vms.web.storage[0].file: file/x does not exist: a part of its path is a file",
        "m.yaml:9:25: vms.web.storage[1].file: none does not exist",
    ]


def test_the_assertion_says_what_differs(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    vm = web(write(tmp_path / "m.yaml", "vms: {web: {image: link/x, kernel: a/k}}"))
    with pytest.raises(AssertionError) as caught:
        assert_resolves(vm, {"image": "real/x", "kernel": "b/k", "initrd": "i"}, base=tmp_path)
    said = str(caught.value)
    assert "paths of VM 'web' differ:" in said
    assert "the same file by another way (a link on the path)" in said
    assert f"kernel: {tmp_path}/a/k, wanted {tmp_path}/b/k: they part below {tmp_path}" in said
    assert "initrd: no path there; the VM has kernel, image" in said
