"""What goes wrong, and what the user then sees: causes, sections, artifacts, culprits."""

from __future__ import annotations

import re

import pytest

#: A line of a traceback that is in our code.
OUR_FRAMES = re.compile(r"pytest_maqet/[\w/]+\.py")

BROKEN = """
default: broken
vms:
  broken:
    image: builtin:nano
    memory: 16M
    ready: [{console: "this never comes", timeout: 1}]
"""


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_start_that_failed_is_not_tried_again(suite, workers):
    suite.yaml(BROKEN)
    suite.tests("".join(f"def test_{number}(vm): pass\n" for number in range(6)))
    result = suite.run(workers, "--maqet-timeout-scale=1")
    result.assert_outcomes(errors=6)
    text = result.stdout.str()
    assert "this never comes" in text
    assert text.count("is not started again") >= 4, (
        "four of six, at least, fail at once with the first one's cause"
    )
    result.stdout.fnmatch_lines(["*VM start*: * failed (*not tried again*"])
    assert not OUR_FRAMES.search(text), "a traceback of ours helps nobody"
    assert suite.left_over() == []


def test_a_failed_start_shows_what_the_vm_said_and_keeps_it(suite):
    suite.yaml(BROKEN)
    suite.tests("def test_it(vm): pass")
    result = suite.run("--maqet-timeout-scale=1")
    result.stdout.fnmatch_lines(
        ["*this never comes*", "*console of broken*", "*guest ready*", "*command line of broken*"]
    )
    logs = list((suite.path / ".maqet" / "artifacts").glob("*test_it*/*console*.log"))
    assert logs, "no console log among the artifacts"
    assert "guest ready" in logs[0].read_text(errors="replace")
    assert (suite.path / ".maqet" / "artifacts" / ".gitignore").exists()


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_failed_test_shows_its_vms(suite, workers):
    suite.tests(
        """
        def test_it(nano, store):
            nano.console.send("hello there\\n")
            nano.wait.console("hello there")
            assert False, "for the report"

        def test_innocent(): assert False, "without a VM"
        """
    )
    result = suite.run(workers)
    result.assert_outcomes(failed=2)
    text = result.stdout.str()
    for wanted in ("console of nano", "hello there", "command line of nano", "command line of store"):
        assert wanted in text, f"{wanted!r} is not in the report"
    assert text.count("command line of store") == 1, "a test that uses no VM shows none"
    kept = {path.name for path in (suite.path / ".maqet/artifacts").glob("*test_it*/*")}
    assert {"nano-console-main.log", "nano-command-line.txt"} <= kept, f"artifacts: {kept}"


def test_a_failed_tests_screen_is_kept_where_there_is_one(suite):
    suite.yaml("vms: {seen: {image: builtin:nano, memory: 16M, vga: std}, blind: {image: builtin:nano}}")
    suite.tests("def test_it(seen, blind): assert False")
    suite.run().assert_outcomes(failed=1)
    pictures = list((suite.path / ".maqet/artifacts").glob("*test_it*/*.png"))
    assert [path.name for path in pictures] == ["seen-screen.png"]
    data = pictures[0].read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    assert width >= 640, f"a picture of {width} × {height}"
    assert height >= 400, f"a picture of {width} × {height}"


def test_two_vms_of_one_name_keep_their_evidence_apart(suite):
    suite.tests(
        """
        import pytest

        @pytest.fixture
        def bad_end(nano):
            yield
            assert False, "a second failure of the same test"

        def test_it(vm_factory, nano, bad_end):
            other = vm_factory("nano")
            for vm, word in ((nano, "one"), (other, "two")):
                vm.console.send(word + "\\n")
                vm.wait.console(f"echo: {word}")
            assert False
        """
    )
    result = suite.run()
    result.assert_outcomes(failed=1, errors=1)
    logs = list((suite.path / ".maqet/artifacts").glob("*test_it*/*-console-main.log"))
    said = sorted(path.read_bytes().count(b"echo: one") for path in logs)
    assert said == [0, 1], f"one log for each of the two VMs, got {[path.name for path in logs]}"


def test_artifacts_of_an_earlier_run_go(suite):
    suite.tests("import os\ndef test_it(nano): assert not os.environ.get('FAIL')")
    folder = suite.path / "kept"
    suite.pytester.plugins = []
    import os

    os.environ["FAIL"] = "1"
    try:
        suite.run(f"--maqet-artifacts={folder}").assert_outcomes(failed=1)
    finally:
        del os.environ["FAIL"]
    assert list(folder.glob("*test_it*"))
    suite.run(f"--maqet-artifacts={folder}").assert_outcomes(passed=1)
    assert not list(folder.glob("*test_it*")), "the test passes now"


def test_a_panic_that_no_wait_saw_fails_the_test(suite):
    suite.tests(
        """
        import time
        import pytest

        def test_panic(vm):
            vm.console.send("Kernel panic - not syncing: as a joke\\n")
            deadline = time.monotonic() + 10
            while b"as a joke" not in vm.console_log.read_bytes() and time.monotonic() < deadline:
                time.sleep(0.02)

        @pytest.mark.maqet(fail_on=False)
        def test_off(vm):
            vm.console.send("Kernel panic - not syncing: as a joke\\n")
            vm.wait.console("as a joke")
        """
    )
    result = suite.run()
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*GuestPanic*", "*as a joke*"])
    assert not OUR_FRAMES.search(result.stdout.str())


@pytest.mark.parametrize("damage", ["store.kill()", "store.pause()", "store.qmp.execute('quit')"])
def test_a_shared_vm_left_unusable_is_replaced_and_the_culprit_named(suite, damage):
    suite.tests(
        f"""
        pids = []

        def test_before(store): pids.append(store.pid)
        def test_culprit(store): {damage}
        def test_another(): pass
        def test_after(store):
            assert store.status == "running" and store.pid != pids[0]
            store.console.send("echo\\n")
            store.wait.console("echo")
        """
    )
    result = suite.run()
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        ["*2 VM starts: 2 cloned*1 in place of an unusable one*", "store was unusable after *test_culprit: *"]
    )
    assert suite.left_over() == []


def test_an_error_in_a_test_is_shown_at_the_users_line(suite):
    suite.tests(
        """
        def helper(vm):
            vm.wait.console("never comes", timeout=0.2)

        def test_it(vm):
            helper(vm)
        """
    )
    result = suite.run("--maqet-timeout-scale=1")
    result.stdout.fnmatch_lines(
        ["*vm.wait.console(*", "E *WaitTimeout*never comes*", "*test_it.py:3: WaitTimeout*"]
    )
    assert not OUR_FRAMES.search(result.stdout.str())
    assert OUR_FRAMES.search(suite.run("--maqet-timeout-scale=1", "--full-trace").stdout.str())


def test_hooks_follow_a_vms_life(suite):
    suite.yaml(BROKEN + "  good: {image: builtin:nano, memory: 16M}\n")
    suite.conftest(
        """
        def pytest_maqet_vm_started(vm): print("HOOK started", vm.name)
        def pytest_maqet_vm_ready(vm): print("HOOK ready", vm.name)
        def pytest_maqet_vm_failed(vm, error): print("HOOK failed", vm.name, type(error).__name__)
        def pytest_maqet_vm_stopping(vm): print("HOOK stopping", vm.name)
        """
    )
    suite.tests("def test_good(good): pass\ndef test_broken(broken): pass\n")
    result = suite.run("-s", "--maqet-timeout-scale=1")
    hooks = [line[line.index("HOOK") + 5 :] for line in result.outlines if "HOOK" in line]
    assert hooks == [
        "started good",
        "ready good",
        "stopping good",
        "started broken",
        "failed broken WaitTimeout",
    ]


def test_a_fixture_that_fails_half_way_leaves_nothing(suite):
    suite.tests(
        """
        import pytest

        @pytest.fixture
        def half(nano):
            raise RuntimeError("half-way")

        def test_it(nano, half, store): pass
        """
    )
    suite.run().assert_outcomes(errors=1)
    assert suite.left_over() == []
    suite.run("-x").assert_outcomes(errors=1)
    assert suite.left_over() == []


@pytest.mark.parametrize(
    ("start", "victim", "number", "told"),
    [
        ("boot", "vm.pid", "SIGKILL", "*killed by signal 9*"),
        ("clone", "vm.pid", "SIGTERM", "*terminating on signal 15*"),
        ("clone", "keeper_of(vm.pid)", "SIGKILL", "*ended together with its keeper*"),
    ],
)
def test_a_start_that_somebody_killed_is_tried_again(suite, own_cache, start, victim, number, told):
    """A killed QEMU says nothing about the next one: whoever did it does not pick on that VM."""
    ready = "[{call: 'conditions:not_the_first', timeout: 20}]"
    suite.yaml(f"vms: {{own: {{image: builtin:nano, memory: 16M, ready: {ready}}}}}")
    suite.file(
        "conditions.py",
        f"""
        import os, pathlib, signal

        killed = []

        def keeper_of(pid):
            status = pathlib.Path(f"/proc/{{pid}}/status").read_text()
            return int(status.partition("PPid:")[2].split()[0])

        def not_the_first(vm):
            if not killed:
                killed.append(vm)
                os.kill({victim}, signal.{number})
            return vm is not killed[0]
        """,
    )
    suite.tests("def test_hit(own): pass\ndef test_after(own): assert own.status == 'running'\n")
    result = suite.run(f"--maqet-start={start}")
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines([told])
    assert suite.left_over() == []
