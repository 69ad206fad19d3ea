"""`secrets:`: a guest prints one and fails, and it is nowhere in what is shown, written or passed on."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

SECRET = "s3cr3t, wörd/+=&\"'x"
LINES = "first-line-of-it\nsecond-line-of-it"
YAML = """
default: nano
vms:
  nano:
    image: builtin:nano
    memory: 16M
    secrets: [TOKEN, KEYS, NOT_SET]
    guest: {connect: [console], password_env: PASSWORD}
"""
TESTS = """
import base64, json, logging, os, pathlib, pytest

@pytest.fixture
def talkative(vm):
    secret = os.environ["TOKEN"]
    for said in (secret, base64.b64encode(b"user:" + secret.encode()).decode(), os.environ["KEYS"],
                 os.environ["PASSWORD"]):
        vm.console.send(said + "\\n")
    vm.console.send("and the end\\n")
    vm.wait.console("echo: and the end")
    keeper = pathlib.Path(f"/proc/{vm.pid}/stat").read_text().rpartition(")")[2].split()[1]
    found = {}
    for who, pid in (("qemu", vm.pid), ("keeper", keeper)):
        for name in ("cmdline", "environ"):
            found[f"{who} {name}"] = pathlib.Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
    pathlib.Path("proc.json").write_text(json.dumps(found))
    pathlib.Path("stats.json").write_text(vm.command_line + repr(vm) + repr(vm.config))
    return vm

def test_it(talkative, record_property):
    secret = os.environ["TOKEN"]
    print("printed by the test:", secret)
    logging.getLogger("theirs").warning("logged by the test: %s", secret)
    record_property("token", secret)
    local = secret
    talkative.wait.console("never comes " + secret.split(",")[0] + "|" + os.environ["PASSWORD"], timeout=0.05)

def test_assertion(talkative):
    assert os.environ["TOKEN"] == "else"

def test_screen(talkative):
    pytest.skip("because of " + os.environ["TOKEN"])

def test_warning(vm):
    import warnings
    warnings.warn("beware of " + os.environ["TOKEN"])
"""

#: Everything that pytest can show.
SHOW_ALL = ("-rA", "--showlocals", "--junitxml=junit.xml", "-ojunit_logging=all", "-ojunit_family=legacy")


def forms(secret: str) -> list[str]:
    """What must not be found."""
    raw = secret.encode()
    encoded = [base64.b64encode(b"user:" + raw).decode()[8:-4], base64.b64encode(raw).decode()[:-4]]
    return [secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], quote(secret), raw.hex(), *encoded]


def check_nowhere(texts: dict[str, str], secrets: list[str]) -> None:
    for where, text in texts.items():
        for secret in secrets:
            assert secret not in text, (
                f"{secret!r} is in {where}: …{text[max(0, text.find(secret) - 80) :][:200]}"
            )


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_a_secret_is_nowhere(suite, monkeypatch, workers):
    for name, value in (("TOKEN", SECRET), ("KEYS", LINES), ("PASSWORD", "pass-word")):
        monkeypatch.setenv(name, value)
    suite.yaml(YAML)
    suite.tests(TESTS)
    result = suite.run(workers, *SHOW_ALL, "--maqet-timeout-scale=1", "--maqet-templates=off")
    result.assert_outcomes(failed=2, passed=1, skipped=1)
    artifacts = [path for path in (suite.path / ".maqet").rglob("*") if path.is_file()]
    assert {path.name for path in artifacts} >= {"nano-console-main.log", "nano-command-line.txt"}
    texts = {
        str(path.relative_to(suite.path)): path.read_bytes().decode(errors="replace") for path in artifacts
    }
    texts |= {name: (suite.path / name).read_text() for name in ("junit.xml", "proc.json", "stats.json")}
    texts |= {"stdout": result.stdout.str(), "stderr": result.stderr.str()}
    check_nowhere(texts, [*forms(SECRET), *LINES.splitlines(), "pass-word"])
    console = next(text for name, text in texts.items() if name.endswith("nano-console-main.log"))
    assert "***" in console, "the guest has said it, or nothing was tested"
    for shown in ("printed by the test: ***", "logged by the test: ***", "because of ***", "beware of ***"):
        assert shown in texts["stdout"], shown
    assert "printed by the test: ***" in texts["junit.xml"]
    environment = json.loads(texts["proc.json"])
    assert "qemu-system" in environment["qemu cmdline"]
    for who in ("qemu", "keeper"):
        assert "PATH=" in environment[f"{who} environ"], "what QEMU needs is there"
        assert "MAQET_" not in environment[f"{who} environ"], "and nothing else"


def test_a_worker_that_crashes_tells_no_secret(suite, monkeypatch):
    monkeypatch.setenv("TOKEN", SECRET)
    suite.yaml(YAML)
    suite.tests(
        """
        import os, signal
        def test_it(vm):
            vm.console.send(os.environ["TOKEN"] + "\\n")
            vm.console.send("end\\n")
            vm.wait.console("echo: end")
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    result = suite.run("-n1", "--max-worker-restart=0", "--maqet-templates=off")
    text = result.stdout.str() + result.stderr.str()
    assert "console of nano" in text
    assert "***" in text
    kept = {str(path): path.read_bytes().decode(errors="replace")
            for path in (suite.path / ".maqet").rglob("*.log")}  # fmt: skip
    assert any("***" in log for log in kept.values()), f"the kept logs: {list(kept)}"
    check_nowhere({"output": text, **kept}, forms(SECRET))


@pytest.mark.parametrize(
    "key", ["append: 'token=${TOKEN}'", "arguments: [{fw_cfg: 'name=opt/x,string=${TOKEN}'}]"]
)
def test_a_secret_never_reaches_the_command_line(suite, monkeypatch, key):
    monkeypatch.setenv("TOKEN", "abcdefgh")
    suite.yaml(f"vms: {{web: {{image: builtin:nano, memory: 16M, secrets: TOKEN, {key}}}}}".replace(
        "secrets: TOKEN", "secrets: [TOKEN]"))  # fmt: skip
    suite.tests("def test_it(web): pass")
    result = suite.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*the value of TOKEN, a secret, would be on QEMU's command line*", "*hint: *file*"]
    )
    assert "abcdefgh" not in result.stdout.str()
    assert suite.left_over() == []


def test_a_value_too_short_to_be_masked_is_refused(suite, monkeypatch):
    monkeypatch.setenv("TOKEN", "abc")
    suite.yaml("vms:\n  web:\n    image: builtin:nano\n    secrets: [TOKEN]\n")
    suite.tests("def test_it(web): pass")
    result = suite.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*maqet.yaml:4:15: secrets: the value of TOKEN is too short to be masked*4 char*"]
    )


def test_a_configuration_with_a_fault_tells_no_secret(suite, monkeypatch):
    monkeypatch.setenv("TOKEN", "abcdefgh")
    suite.yaml("vms: {web: {image: builtin:nano, memory: 'x${TOKEN}', secrets: [TOKEN]}}")
    suite.tests("def test_it(web): pass")
    result = suite.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*maqet.yaml:1:42: vms.web.memory: found 'x[*][*][*]'; allowed is a size*"])


def test_a_guests_escapes_do_not_reach_the_terminal(suite):
    suite.tests(
        r"""
        HOSTILE = "\x1b]0;owned\x07\x9b2J\x1b[31mred\x1bP1$r\x1b\x08\x08\u202eevil\u2066"
        def test_it(nano):
            nano.console.send(HOSTILE + "\n")
            nano.console.send("end\n")
            nano.wait.console("echo: end")
            nano.wait.console("never", timeout=0.05)
        """
    )
    result = suite.run("--maqet-timeout-scale=1", "--color=no")
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    report = text[text.index("E ") :]
    found = {char for char in report if not char.isprintable() and char not in "\n\t"}
    assert not found, f"control characters of the guest in the report: {found}"
    assert "evil" in report


def test_what_another_plugin_makes_of_a_failure_is_shown(suite, monkeypatch):
    monkeypatch.setenv("TOKEN", "abcdefgh")
    monkeypatch.setenv("PLAIN", "hidden")
    suite.yaml("vms: {web: {image: builtin:nano, memory: 16M, secrets: [TOKEN]}}")
    suite.pytester.makeconftest(
        """
        import dataclasses, os, pytest
        @dataclasses.dataclass(frozen=True)
        class Shown:
            text: str
            def toterminal(self, tw): tw.line(self.text)
            def __str__(self): return self.text
        class Item(pytest.Item):
            def runtest(self): raise ValueError
            def repr_failure(self, excinfo): return Shown("not " + os.environ[self.name])
        class File(pytest.File):
            def collect(self):
                yield from (Item.from_parent(self, name=name) for name in ("TOKEN", "PLAIN"))
        def pytest_collect_file(file_path, parent):
            return File.from_parent(parent, path=file_path) if file_path.suffix == ".foo" else None
        """
    )
    suite.pytester.makefile(".foo", a="")
    result = suite.run()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["not [*][*][*]", "not hidden"])
