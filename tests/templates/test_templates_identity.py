"""What makes two VMs share a template, and what does not."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pytest_maqet.config import VmConfig, load_config
from pytest_maqet.errors import StartError
from pytest_maqet.machine.host import Host
from pytest_maqet.machine.plan import plan_for
from pytest_maqet.machine.template_key import template_key, why_not
from pytest_maqet.templates.identity import content_digest, prepared_key

HOST: Any = Host(run=None, lease=Path("/none"), artifacts=Path("/none"))  # type: ignore[arg-type] # starts nothing


def vm(tmp_path: Path, **keys: Any) -> VmConfig:
    yaml = tmp_path / "maqet.yaml"
    yaml.write_text(json.dumps({"vms": {"web": {"image": "builtin:nano", **keys}}}))
    return load_config([yaml]).vm("web")


def key_of(config: VmConfig) -> str:
    return template_key(plan_for(config, HOST))


@pytest.mark.parametrize(
    "keys",
    [
        {"memory": "512M"},
        {"cpu": 2},
        {"cpu": {"model": "qemu64"}},
        {"machine": "pc"},
        {"network": ["user"]},
        {"storage": [{"name": "data", "size": "1G"}]},
        {"serial": ["main", "other"]},
        {"vga": "std"},
        {"ready": [{"console": "other"}]},
        {"prepare": [{"run": "true"}]},
        {"arguments": [{"device": "virtio-balloon-pci"}]},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_what_reaches_the_machine_is_in_the_key(tmp_path, keys):
    assert key_of(vm(tmp_path, **keys)) != key_of(vm(tmp_path))


@pytest.mark.parametrize(
    "keys",
    [
        {"scope": "session"},
        {"fail_on": ["Oops"]},
        {"timeouts": {"ready": 5}},
        {"teardown": "stop"},
        {"after_clone": ["true"]},
        {"fixture": "other"},
        {"start": "clone"},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_what_does_not_reach_it_is_not(tmp_path, keys):
    assert key_of(vm(tmp_path, **keys)) == key_of(vm(tmp_path))


def test_forwards_and_names_are_not_in_it(tmp_path):
    one = vm(tmp_path, network=[{"user": {"forward": {"http": 80}}}])
    other = vm(tmp_path, network=["user"])
    assert key_of(one) == key_of(other)
    assert key_of(one.model_copy(update={"name": "shop"})) == key_of(one)


def test_a_time_out_of_a_wait_is_not_in_it(tmp_path):
    assert key_of(vm(tmp_path, ready=[{"console": "x", "timeout": 3}])) == key_of(
        vm(tmp_path, ready=[{"console": "x"}])
    )


def test_a_changed_image_is_another_template(tmp_path):
    image = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True)
    before = key_of(vm(tmp_path, image=str(image)))
    assert key_of(vm(tmp_path, image=str(image))) == before
    os.utime(image, ns=(1, 1))
    assert key_of(vm(tmp_path, image=str(image))) != before


def test_a_changed_file_below_the_image_is_another_template(tmp_path):
    base, image = tmp_path / "base.qcow2", tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", base, "1M"], check=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", image], check=True)
    before = key_of(vm(tmp_path, image=str(image)))
    os.utime(base, ns=(1, 1))
    assert key_of(vm(tmp_path, image=str(image))) != before, "the image's backing file counts as well"


@pytest.mark.parametrize(
    "arguments",
    [
        [{"chardev": {"file": None, "id": "log", "path": "./written"}}],
        [{"chardev": {"null": None, "id": "log", "logfile": "{written}"}}],
        [
            {"netdev": "user,id=n0"},
            {"object": {"filter-dump": None, "id": "d", "netdev": "n0", "file": "./written"}},
        ],
        [{"D": "{written}"}],
    ],
    ids=["chardev", "logfile", "filter-dump", "log"],
)
def test_what_qemu_writes_itself_is_not_in_it(tmp_path, arguments):
    written = tmp_path / "written"
    written.write_text("of one start")
    said = json.loads(json.dumps(arguments).replace("{written}", str(written)))
    before = key_of(vm(tmp_path, arguments=said))
    written.write_text("of another start")
    assert key_of(vm(tmp_path, arguments=said)) == before, "each start would make a template of its own"


def test_a_file_that_raw_arguments_read_is_in_it(tmp_path):
    read = tmp_path / "read"
    read.write_text("one")
    arguments = [{"fw_cfg": {"name": "opt/x", "file": "./read"}}]
    before = key_of(vm(tmp_path, arguments=arguments))
    read.write_text("another")
    assert key_of(vm(tmp_path, arguments=arguments)) != before


def test_what_is_put_into_the_guest_counts_with_its_content(tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "run.sh").write_text("echo 1")
    before = key_of(vm(tmp_path, prepare=[{"put": ["app", "/opt/app"]}]))
    assert key_of(vm(tmp_path, prepare=[{"put": ["app", "/opt/app"]}])) == before
    (tmp_path / "app" / "run.sh").write_text("echo 2")
    assert key_of(vm(tmp_path, prepare=[{"put": ["app", "/opt/app"]}])) != before


def test_a_digest_sees_names_modes_links_and_contents(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    file = tree / "file"
    digests = []
    for change in (
        lambda: file.write_text("a"),
        lambda: file.write_text("b"),
        lambda: file.chmod(0o755),
        lambda: file.rename(tree / "other"),
        lambda: (tree / "link").symlink_to("other"),
        lambda: ((tree / "link").unlink(), (tree / "link").symlink_to("elsewhere")),
    ):
        change()
        digests.append(content_digest(tree))
    assert len(set(digests)) == len(digests), "a change was not seen"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(StartError, match="/nowhere cannot be read"):
        content_digest(Path("/nowhere"))


def test_a_function_that_prepares_counts_with_its_source():
    def first(vm: Any) -> None:
        vm.run("one")

    def second(vm: Any) -> None:
        vm.run("two")

    assert prepared_key("base", first, ()) == prepared_key("base", first, ())
    assert prepared_key("base", first, ()) != prepared_key("base", second, ())
    assert prepared_key("base", first, ("v1",)) != prepared_key("base", first, ("v2",))
    assert prepared_key("base", first, ()) != prepared_key("other", first, ())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([{"m": "1G"}], "'-m 1G' says where its memory lies"),
        ([{"object": "memory-backend-ram,id=x,size=256M"}], "memory-backend-ram"),
        ([{"machine": {"memory-backend": "x"}}], "memory-backend=x"),
        ([{"mem-path": "/dev/hugepages"}], "mem-path"),
    ],
    ids=["m", "object", "machine", "mem-path"],
)
def test_memory_that_lies_elsewhere_rules_a_template_out(tmp_path, arguments, words):
    reason = why_not(plan_for(vm(tmp_path, arguments=arguments), HOST))
    assert reason is not None
    assert words in reason
    assert why_not(plan_for(vm(tmp_path), HOST)) is None
