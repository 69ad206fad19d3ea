"""Secrets in the names of things: ids of parameters, properties, subtests, reasons; in values cut short."""

from __future__ import annotations

import json
import random
import string

import pytest

TOKEN = "s3cr3tTok3n"
#: Longer than what pytest shows of a value: it cuts it in the middle.
LONG = "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=400))
YAML = "vms: {nano: {image: builtin:nano, memory: 16M, secrets: [TOKEN, LONG]}}"
TESTS = """
import os, pytest, re, unittest

T, L = os.environ["TOKEN"], os.environ["LONG"]

@pytest.mark.parametrize("t", [T, T + "x", T.encode(), re.compile(T), 7])
def test_value(t, nano):
    assert t == 7, nano

@pytest.mark.parametrize("t", [1, 2], ids=[T, "b" + T])
def test_ids(t): assert t == 1

@pytest.mark.parametrize("t", [pytest.param(1, id="q" + T), 2])
def test_param(t): pass

@pytest.mark.parametrize("t", [1, 2], ids=lambda value: f"fn{T}" if value == 1 else None)
def test_function(t): pass

class TestIterator:
    @pytest.mark.parametrize("t", [1, 2], ids=(f"{T}{n}" for n in "ab"))
    def test_it(self, t): pass

@pytest.fixture(params=[T])
def fixture(request): return request.param

def test_fixture(fixture, record_xml_attribute, record_testsuite_property, record_property):
    assert fixture == T, "what is masked is the name, not the value"
    record_xml_attribute("attribute", T)
    record_testsuite_property("of the suite " + T, T)
    record_property("of the test " + T, T)

def test_subtests(subtests):
    with subtests.test(msg="message " + T, named="named " + T):
        print("printed", T)
        assert T == 1

class TestUnit(unittest.TestCase):
    def test_unit(self):
        with self.subTest(t=T):
            self.fail("said " + T)

@pytest.mark.xfail(reason="reason " + T)
def test_xfail(): assert 0

def test_cut():
    local = L
    assert L == "other"

def test_cut_in_a_dictionary():
    assert {"a": L, "b": [L]} == {}

def test_what_is_alike_is_skipped():
    assert L == L[:200] + "#" + L[201:]
"""
#: A plugin that writes all it hears of reports, an item that is named by a secret, and an id of a plugin.
CONFTEST = """
import json, os, pytest

def pytest_runtest_logreport(report):
    if "PYTEST_XDIST_WORKER" not in os.environ:
        data = report.__dict__ | {"longrepr": str(report.longrepr), "keywords": list(report.keywords)}
        with open("reports.jsonl", "a") as file:
            print(json.dumps(data, default=str), file=file)

def pytest_make_parametrize_id(val):
    return "by a plugin " + os.environ["TOKEN"] if val == 7 else None

class Item(pytest.Item):
    def runtest(self): raise ValueError

class File(pytest.File):
    def collect(self): yield Item.from_parent(self, name="item-" + os.environ["TOKEN"])

def pytest_collect_file(file_path, parent):
    return File.from_parent(parent, path=file_path) if file_path.suffix == ".foo" else None
"""


@pytest.fixture
def talkative(suite, monkeypatch):
    monkeypatch.setenv("TOKEN", TOKEN)
    monkeypatch.setenv("LONG", LONG)
    suite.yaml(YAML)
    suite.conftest(CONFTEST)
    suite.tests(TESTS)
    return suite


def pieces_in(text: str) -> list[str]:
    """The lines with the short secret, or with a piece of 11 characters of the long one.

    pytest shows 10 on both sides of what differs, when it skips the rest; a mask for so few would hide words.
    """
    pieces = [TOKEN, *(LONG[at : at + 11] for at in range(len(LONG) - 10))]
    return [line[:300] for line in text.splitlines() if any(piece in line for piece in pieces)]


@pytest.mark.parametrize("verbose", ["-q", "-vv"])
@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_a_secret_is_in_no_name(talkative, workers, verbose):
    result = talkative.pytester.runpytest_subprocess(
        workers, verbose, "-rA", "--showlocals", "--durations=0", "--durations-min=0", "--junitxml=junit.xml",
        "-ojunit_logging=all", "-ojunit_family=legacy", "-ocache_dir=kept", "--maqet-templates=off",
    )  # fmt: skip
    text = result.stdout.str() + result.stderr.str()
    assert "test_value[***0]" in text, f"the tests did not run, or are named otherwise:\n{text}"
    assert "test_ids[b***]" in text
    assert "message ***" in text, "a subtest has lost its message"
    files = [talkative.path / "junit.xml", talkative.path / "reports.jsonl"]
    files += [path for name in ("kept", ".maqet") for path in (talkative.path / name).rglob("*")]
    assert any("lastfailed" in path.name for path in files)
    assert any("nano-console" in path.name for path in files), "the artefacts are named by the tests"
    shown = {"output": text, **{str(path): str(path) for path in files}}
    shown |= {str(path): path.read_text(errors="replace") for path in files if path.is_file()}
    found = {name: lines for name, text in shown.items() if (lines := pieces_in(text))}
    assert not found, f"a secret, or most of one, is in {json.dumps(found, indent=1)}"


def test_a_test_is_chosen_by_its_masked_name(talkative):
    listed = talkative.run_here("--collect-only", "-q").stdout.str()
    assert not pieces_in(listed), "--collect-only shows a secret"
    assert "test_value[by a plugin ***]" in listed
    assert "test_it[***a]" in listed
    assert "test_it[***b]" in listed
    result = talkative.run_here("test_it.py::test_ids[b***]", "test_it.py::test_param[q***]")
    result.assert_outcomes(passed=1, failed=1)


def test_a_worker_that_crashes_in_such_a_test(talkative):
    talkative.tests(
        """
        import os, pytest, signal
        @pytest.mark.parametrize("t", [os.environ["TOKEN"]])
        def test_it(t): os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    result = talkative.run("-n1", "--max-worker-restart=0", "test_it.py")
    text = result.stdout.str()
    assert "crashed while running 'test_it.py::test_it[***]'" in text, text
    assert not pieces_in(text)


def test_a_short_value_is_masked_where_the_user_said_so_and_the_header_tells(suite, monkeypatch):
    for name, value in (("PIN", "4711"), ("PASSWORD", "root")):
        monkeypatch.setenv(name, value)
    suite.yaml(
        "vms: {nano: {image: builtin:nano, secrets: [PIN], guest: {user: root, password_env: PASSWORD}}}"
    )
    suite.tests("def test_it(): assert '/root/4711x.qcow2 root' == 'x'")
    result = suite.run_here()
    result.stdout.fnmatch_lines(["*maqet: under 8 characters, so masked within words and paths, too: *PIN"])
    result.stdout.fnmatch_lines(["E *assert '/root/[*][*][*]x.qcow2 [*][*][*]' == 'x'"])
