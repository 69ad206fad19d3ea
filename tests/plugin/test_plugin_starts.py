"""Starts: several at once, errors that stop them, and what the run says about them."""

from __future__ import annotations

import json

import pytest

MANY = "defaults: {image: builtin:nano, memory: 16M}\nvms: {one: {}, two: {}, three: {scope: module}}\n"


def test_all_vms_of_a_tests_closure_start_at_once(suite):
    suite.yaml(MANY)
    suite.tests(
        """
        import json, threading, pytest

        @pytest.fixture
        def user(two): return two

        @pytest.mark.maqet("one", memory="24M")
        def test_it(vm, user, three, maqet, request):
            starts = maqet.stats()["starts"]
            (request.config.rootpath / "starts.json").write_text(json.dumps(starts))
            assert not [thread for thread in threading.enumerate() if thread.name.startswith("maqet-")]
        """
    )
    suite.run("-W", "error").assert_outcomes(passed=1)
    starts = json.loads((suite.path / "starts.json").read_text())
    assert {record["vm"] for record in starts} == {"one", "two", "three"}
    last_beginning = max(record["began"] for record in starts)
    first_ready = min(record["ready"] for record in starts)
    assert last_beginning < first_ready, "one was ready before another had begun"


def test_one_that_fails_does_not_take_the_others_with_it(suite):
    suite.yaml(MANY + "  \n")
    suite.yaml(
        "defaults: {image: builtin:nano, memory: 16M}\n"
        "vms: {good: {scope: module}, bad: {ready: [{console: never, timeout: 1}]}}\n"
    )
    suite.tests("def test_both(good, bad): pass\ndef test_good(good): assert good.status == 'running'\n")
    result = suite.run("--maqet-timeout-scale=1")
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(["*2 VM starts: 1 cloned, 1 failed*"])
    assert suite.left_over() == []


def test_a_rerun_of_a_flaky_test_tries_a_failed_start_again(suite):
    ready = "[{call: 'conditions:on_the_second_start', timeout: 2}]"
    suite.yaml(f"vms: {{flaky: {{image: builtin:nano, memory: 16M, ready: {ready}}}}}")
    suite.file(
        "conditions.py",
        """
        pids = set()

        def on_the_second_start(vm):
            pids.add(vm.pid)
            return len(pids) > 1
        """,
    )
    suite.conftest(
        """
        import sys, pytest
        sys.path.insert(0, ".")

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_protocol(item, nextitem):
            from _pytest.runner import runtestprotocol  # as plugins that rerun tests do: no public way
            item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
            for item.execution_count in (1, 2, 3, 4):
                reports = runtestprotocol(item, nextitem=nextitem, log=False)
                if not any(report.failed for report in reports):
                    break
            for report in reports:
                item.ihook.pytest_runtest_logreport(report=report)
            return True
        """
    )
    suite.tests("def test_it(flaky, request): assert request.node.execution_count > 1")
    result = suite.run("--maqet-timeout-scale=1")
    result.assert_outcomes(passed=1)


BAD_MACHINES = {
    "no QEMU": ("binary: qemu-system-nowhere", "*qemu-system-nowhere*"),
    "unknown machine": ("machine: pc-1.0-unknown", "*pc-1.0-unknown*"),
    "unknown device": ("arguments: [{device: no-such-device}]", "*no-such-device*"),
    "exclusive options": ("arguments: [{icount: auto}, {accel: 'tcg,thread=multi'}]", "*icount*"),
}


@pytest.mark.parametrize("bad", BAD_MACHINES)
def test_what_qemu_refuses_is_one_clear_error(suite, bad):
    line, message = BAD_MACHINES[bad]
    suite.yaml(f"vms:\n  web:\n    image: builtin:nano\n    memory: 16M\n    {line}\n")
    suite.tests("def test_it(web): pass")
    result = suite.run()
    assert result.ret in (1, 4)
    output = result.stdout.str() + result.stderr.str()
    pytest.LineMatcher(output.splitlines()).fnmatch_lines([message])
    assert "Traceback" not in output
    assert "INTERNALERROR" not in output
    assert suite.left_over() == []


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_named_accelerator_that_does_not_work_is_a_usage_error(suite, workers):
    suite.tests("def test_it(vm): pass")
    result = suite.run("--maqet-accel=hvf", workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*hvf*"])
    assert "Traceback" not in result.stderr.str()
    assert suite.run("--maqet-accel=hvf", "--collect-only").ret == 0, "nothing is started, nothing is probed"


def test_the_summary_lists_the_slowest_and_is_quiet_when_asked(suite):
    suite.tests("def test_a(nano): pass\ndef test_b(nano, store): pass\n")
    suite.run("--maqet-durations=2").stdout.fnmatch_lines(
        ["*= maqet =*", "3 VM starts: 3 cloned*; slowest *", "* s  clone *", "* s  clone *"]
    )
    assert "VM starts" not in suite.run("-q").stdout.str()
    workers = suite.run("-n2")
    workers.stdout.fnmatch_lines(["3 VM starts: 3 cloned*"])


def test_the_header_says_what_is_true(suite):
    suite.tests("def test_a(): pass")
    suite.run().stdout.fnmatch_lines(["maqet: maqet.yaml (2 VMs), QEMU *.*.*, *"])
    suite.run("--collect-only").stdout.fnmatch_lines(["maqet: maqet.yaml (2 VMs)"])


def test_doctests_can_ask_for_a_vm(suite):
    suite.file("doc.txt", ">>> getfixture('nano').status\n'running'\n")
    suite.run("--doctest-glob=*.txt").assert_outcomes(passed=1)


def test_user_locks_hold_across_workers_and_name_their_holder(suite):
    suite.tests(
        """
        import time, pytest
        from pytest_maqet import LockTimeout

        @pytest.mark.parametrize("number", range(2))
        def test_it(vm_start_lock, number, request):
            with vm_start_lock("mine", timeout=30):
                path = request.config.rootpath / "held"
                assert not path.exists()
                path.touch()
                time.sleep(0.5)
                with pytest.raises(LockTimeout, match="test_it"):
                    with vm_start_lock("mine", timeout=0.1): pass
                with vm_start_lock("another", timeout=1): pass
                path.unlink()
        """
    )
    suite.run("-n2").assert_outcomes(passed=2)


def test_warnings_as_errors_with_workers(suite):
    suite.tests("def test_a(nano): pass\ndef test_b(store): pass\n")
    result = suite.run("-n2", "-W", "error", "--strict-markers")
    result.assert_outcomes(passed=2)
    assert "warnings summary" not in result.stdout.str()


def test_a_command_that_the_guest_lacks_skips(suite):
    suite.yaml("vms: {web: {image: builtin:linux}}")
    suite.tests(
        """
        import pytest

        @pytest.mark.maqet_requires(guest="no-such-command")
        def test_vm(vm): pass

        @pytest.mark.maqet_requires(guest=["sh", "no-such-command"])
        def test_named(web): pass

        @pytest.mark.maqet_requires(guest="sh")
        def test_has(web): assert web.run("uname -s").stdout == "Linux\\n"
        """
    )
    result = suite.run("-rs", timeout=400)
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(["*web has no command 'no-such-command'*"])
