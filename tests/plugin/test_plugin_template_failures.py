"""When the VM of a template fails, or the run is broken off: who hears of it, how often, and what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from pytest_maqet.templates.store import LOCKS, REFUSED

NEVER_READY = """
vms:
  nano:
    image: builtin:nano
    memory: 16M
    ready:
      - console: never printed
        timeout: 0.5
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_waiters_fail_with_the_maker_of_their_template(suite, own_cache, workers):
    suite.yaml(NEVER_READY)
    suite.conftest(
        """
        def pytest_maqet_vm_failed(vm, error):
            import os
            with open(os.environ["BOOTED"], "a") as file:
                file.write("failed\\n")
        """
    )
    suite.tests("import pytest\n@pytest.mark.parametrize('n', range(6))\ndef test_it(nano, n): pass")
    booted = suite.path / "booted"
    os.environ["BOOTED"] = str(booted)
    try:
        result = suite.run("-n", workers)
    finally:
        del os.environ["BOOTED"]
    result.assert_outcomes(errors=6)
    assert booted.read_text() == "failed\n", "the VM was booted more than once to find the same out"
    report = result.stdout.str()
    assert report.count("never printed") >= 6, "not every test says what was waited for"
    left = [path.name for path in (own_cache / "templates").iterdir() if path.name not in (REFUSED, LOCKS)]
    assert left == [], "the draft of the failed template is left"
    assert suite.left_over() == []


@pytest.mark.parametrize("error", ["ValueError('no such luck')", "PermissionError(13, 'no such luck')"])
def test_what_a_function_of_prepare_raises_is_told_once_and_with_its_step(suite, own_cache, error):
    suite.yaml("vms: {nano: {image: builtin:nano, memory: 16M, prepare: [{call: 'helpers:prepare'}]}}")
    suite.file(
        "helpers.py",
        f"""
        def prepare(vm):
            with open("calls", "a") as file:
                file.write("called\\n")
            raise {error}
        """,
    )
    suite.tests("import pytest\n@pytest.mark.parametrize('n', range(3))\ndef test_it(nano, n): pass")
    result = suite.run("-p", "helpers")
    result.assert_outcomes(errors=3)
    assert (suite.path / "calls").read_text() == "called\n", "the VM was booted again to find the same out"
    report = result.stdout.str()
    assert report.count("step 1 of `prepare:` failed (call helpers:prepare)") >= 3, report
    assert f"helpers.py:5, in prepare: raise {error}" in report, "the line of the function is not shown"
    assert "could not be written" not in report, "the suite's own error is taken for one of the cache"


def test_ctrl_c_while_spares_are_made_is_quiet(suite):
    suite.tests(
        """
        import pathlib, time, pytest
        @pytest.mark.parametrize("n", range(50))
        def test_it(nano, n):
            pathlib.Path("running").touch()
            time.sleep(0.3)
        """
    )
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=suite.path,
    )
    end = time.monotonic() + 60
    while not (suite.path / "running").exists():
        assert time.monotonic() < end, "no test has begun"
        assert run.poll() is None, "pytest ended by itself"
        time.sleep(0.02)
    time.sleep(0.5)
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == pytest.ExitCode.INTERRUPTED, output
    assert "KeyboardInterrupt" in output
    for word in ("Exception ignored", "Traceback", "pytest_maqet/", "never awaited", "ResourceWarning"):
        assert word not in output, f"{word!r} after Ctrl-C:\n{output}"
    assert suite.left_over() == []
