"""Templates made of templates, and of VMs that booted: they stand alone, and their keys tell them apart."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from manager_rig import acquired

from pytest_maqet.errors import ConfigError, StartError
from pytest_maqet.templates.identity import prepared_key

LINUX = {"image": "builtin:linux", "memory": "256M", "storage": [{"name": "data", "size": "16M"}]}
NANO = {"image": "builtin:nano", "memory": "16M"}


def mark(vm) -> None:
    vm.run("echo derived > /dev/vda; sync; echo memory > /mark")


def test_a_derived_template_does_not_need_the_one_it_was_made_on(new_manager, store):
    template = new_manager({"linux": LINUX}).template("linux", prepare=mark)
    assert template.key != template.base
    manager = new_manager({"linux": LINUX})
    store.remove(template.base)
    again = manager.template("linux", prepare=mark)
    assert again.key == template.key
    with manager.start(again) as vm:
        assert vm.run("head -n 1 /dev/vda; cat /mark").stdout == "derived\nmemory\n"


@pytest.mark.parametrize("on", ["a kept one", "one of a running VM"])
def test_a_template_can_be_made_of_a_template(new_manager, store, on):
    def more(vm) -> None:
        vm.run("cat /mark > /more")

    manager = new_manager({"linux": LINUX})
    below = manager.template("linux", prepare=mark)
    if on == "one of a running VM":
        with manager.start(below) as vm:
            below = vm.freeze()
    kept = len(store.all())
    above = manager.template(below, prepare=more)
    with manager.start(above, fail_on=False) as vm:
        assert vm.run("head -n 1 /dev/vda; cat /more").stdout == "derived\nmemory\n"
    if on == "a kept one":
        assert new_manager({"linux": LINUX}).template(below, prepare=more).key == above.key
    else:
        assert len(store.all()) == kept, "what nobody can ask for again is kept"
    with pytest.raises(ConfigError, match="frozen as it is"):
        manager.template(below, prepare=more, memory="300M")


@pytest.mark.parametrize("how", ["booted", "started again"])
def test_a_vm_with_memory_of_its_own_can_be_frozen(new_manager, how):
    manager = new_manager({"linux": {**LINUX, "start": "boot" if how == "booted" else "auto"}})
    vm = acquired(manager, "linux")
    if how == "started again":
        vm.kill()
        vm.start()
    vm.run("echo mine > /mine")
    template = vm.freeze()
    assert vm.run("cat /mine").stdout == "mine\n", "the VM itself goes on"
    with manager.start(template) as clone:
        assert clone.run("cat /mine").stdout == "mine\n"


def test_a_paused_vm_can_be_frozen(new_manager):
    manager = new_manager({"linux": LINUX})
    vm = acquired(manager, "linux")
    vm.pause()
    template = vm.freeze()
    assert vm.status == "paused"
    with manager.start(template) as clone:
        assert clone.run("echo awake").stdout == "awake\n"


def test_a_bigger_disk_is_another_template(new_manager, store):
    def sectors(size: str) -> str:
        manager = new_manager({"linux": {**LINUX, "storage": [{"name": "data", "size": size}]}})
        return acquired(manager, "linux").run("cat /sys/block/vda/size").stdout.strip()

    assert (sectors("16M"), sectors("32M")) == ("32768", "65536")
    assert len(store.all()) == 2


def test_a_stopped_clone_holds_its_template_when_it_runs_again(new_manager, store):
    manager = new_manager({"nano": NANO})
    vm = acquired(manager, "nano")
    vm.kill()
    vm.start()
    descriptors = [str(fd.readlink()) for fd in Path(f"/proc/{vm.pid}/fd").iterdir()]
    assert any(name.endswith("/use") for name in descriptors), descriptors
    assert store.evict(0) == []


def test_an_error_of_the_suites_own_function_is_its_own(new_manager):
    def prepare(vm) -> None:
        raise PermissionError("of the suite")

    manager = new_manager({"nano": NANO})
    with pytest.raises(PermissionError, match="of the suite"):
        manager.template("nano", prepare=prepare)


def test_a_step_that_complains_of_permissions_is_no_full_disk(new_manager):
    manager = new_manager({"linux": {**LINUX, "prepare": [{"run": "echo 'Permission denied' >&2; false"}]}})
    with pytest.raises(StartError, match="step 1 of `prepare:` failed"):
        acquired(manager, "linux")
    assert manager.stats()["notes"] == []


def test_no_qemu_of_a_templates_making_is_left(new_manager):
    manager = new_manager({"nano": {**NANO, "scope": "run"}})
    manager.template("nano", prepare=lambda vm: vm.reset())
    pids = [path for path in manager.run_dir.glob("nano-*/pid") if not (path.parent / "exit").exists()]
    assert pids == []


def test_templates_of_running_vms_go_with_their_object(new_manager):
    manager = new_manager({"nano": NANO})
    vm = acquired(manager, "nano")
    for _ in range(3):
        vm.freeze()
    assert len([path for path in (manager.run_dir / "templates").glob("*-*") if path.is_dir()]) <= 1


def test_what_is_put_by_a_link_counts_with_its_content(new_manager, tmp_path):
    (tmp_path / "real").write_text("one")
    (tmp_path / "link").symlink_to("real")
    config = {**LINUX, "prepare": [{"put": ["link", "/put"]}]}
    assert acquired(new_manager({"linux": config}), "linux").run("cat /put").stdout == "one"
    (tmp_path / "real").write_text("two")
    assert acquired(new_manager({"linux": config}), "linux").run("cat /put").stdout == "two"


def fill(vm, rows: int) -> None:
    vm.run(f"echo {rows}")


def test_functions_are_told_apart_by_what_they_are_called_with():
    def closed_over(rows: int):
        return lambda vm: fill(vm, rows)

    keys = {
        prepared_key("base", function, ())
        for function in (
            functools.partial(fill, rows=1),
            functools.partial(fill, rows=2),
            closed_over(1),
            closed_over(2),
        )
    }
    assert len(keys) == 4


def test_functions_are_told_apart_by_all_that_they_do():
    def by_name(rows: int):
        def prepare(vm, *, rows=rows) -> None:
            fill(vm, rows)

        return prepare

    def twice(function):
        @functools.wraps(function)
        def wrapped(vm) -> None:
            function(vm)
            function(vm)

        return wrapped

    # Two in one line, on purpose: a source is read in whole lines.
    one, other = lambda vm: vm.run("one"), lambda vm: vm.run("other")  # fmt: skip
    some, more = by_name(1), by_name(2)
    for left, right, what in (
        (one, other, "two lambdas in one line"),
        (some, more, "two values of a keyword-only argument"),
        (mark, twice(mark), "a function and its decorated self"),
    ):
        keys = [prepared_key("base", function, ()) for function in (left, right)]
        assert keys[0] != keys[1], f"{what} share a template"


def test_a_function_that_calls_itself_has_a_key():
    def descend(vm, depth=3) -> None:
        if depth:
            descend(vm, depth - 1)
        else:
            later(vm)

    def later(vm) -> None:
        vm.run("true")

    assert prepared_key("base", descend, ()) == prepared_key("base", descend, ())


def test_a_key_must_be_the_same_in_every_process():
    assert prepared_key("base", None, ({"b", "a"},)) == prepared_key("base", None, ({"a", "b"},))
    assert prepared_key("base", None, ("the text <X at 0x1234>",)), "a text is the same everywhere"
    with pytest.raises(ConfigError, match="another text in each process"):
        prepared_key("base", None, (object(),))
    with pytest.raises(ConfigError, match="a function with a source"):
        prepared_key("base", len, ())


def test_a_clock_that_begins_at_a_date_does_so_in_clones(new_manager):
    manager = new_manager({"linux": {**LINUX, "rtc": {"base": "2020-01-01T00:00:00"}}})
    acquired(manager, "linux", "template")
    assert acquired(manager, "linux").run("date -u +%Y-%m").stdout == "2020-01\n"
