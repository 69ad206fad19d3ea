"""Every way to get the configuration wrong: one clear error, exit status 4, no traceback, nothing started."""

from __future__ import annotations

import os

import pytest

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

FILES = {
    "empty": ("", ["maqet.yaml", "empty"]),
    "not YAML": ("vms: {web: [}", ["maqet.yaml:1:"]),
    "a list": ("- web\n", ["maqet.yaml:1:"]),
    "alias bomb": (BOMB + "vms: {web: {image: builtin:nano}}\n", ["maqet.yaml"]),
    "nesting bomb": ("vms: " + "[" * 100_000, ["maqet.yaml:1:", "nest"]),
    "duplicate key": (
        "vms:\n  web:\n    memory: 1G\n    memory: 2G\n",
        ["maqet.yaml:4:5", "memory", "maqet.yaml:3:5"],
    ),
    "unknown key": ("vms:\n  web:\n    memroy: 1G\n", ["maqet.yaml:3:5", "memroy", "did you mean 'memory'?"]),
    "unknown top-level key": (
        "vmss:\n  web: {memory: 1G}\n",
        ["maqet.yaml:1:1: vmss", "did you mean 'vms'?"],
    ),
    "an argument that takes the VM away": (
        "vms:\n  web:\n    arguments: [daemonize]\n",
        ["maqet.yaml:3:17: vms.web.arguments[0]", "'-daemonize' cannot be used", "child of its keeper"],
    ),
    "wrong type": ("vms:\n  web:\n    serial: 3\n", ["maqet.yaml:3:", "vms.web.serial"]),
    "unset variable": (
        "vms:\n  web:\n    image: ${NO_SUCH_NAME}\n",
        ["maqet.yaml:3:", "vms.web.image", "NO_SUCH_NAME"],
    ),
    "extends circle": (
        "vms:\n  a: {extends: b}\n  b: {extends: c}\n  c: {extends: a}\n",
        ["maqet.yaml:", "a -> b -> c -> a"],
    ),
    "missing image": ("vms:\n  web:\n    image: gone.qcow2\n", ["maqet.yaml:3:", "gone.qcow2"]),
    "directory for an image": ("vms:\n  web:\n    image: folder\n", ["maqet.yaml:3:", "folder", "directory"]),
    "symlink loop": ("vms:\n  web:\n    image: loop\n", ["maqet.yaml:3:", "loop"]),
    "no identifier": ("vms:\n  3d: {image: builtin:nano}\n", ["maqet.yaml:2:", "fixture:"]),
    "a builtin's name": (
        "vms:\n  tmp_path: {image: builtin:nano}\n",
        ["maqet.yaml:2:", "tmp_path", "fixture:"],
    ),
    "a keyword": ("vms:\n  class: {image: builtin:nano}\n", ["maqet.yaml:2:", "class", "fixture:"]),
    "two VMs of one fixture name": (
        "vms:\n  my-vm: {image: builtin:nano}\n  my_vm: {image: builtin:nano}\n",
        ["maqet.yaml:3:", "my_vm", "my-vm"],
    ),
    "not supported yet": ("vms:\n  web:\n    tpm: true\n", ["maqet.yaml:3:", "not supported yet"]),
    "a VM nobody described": ("default: wbe\nvms:\n  web: {image: builtin:nano}\n", ["wbe", "'web'"]),
}


def check_usage_error(result: pytest.RunResult, words: list[str]) -> None:
    text = result.stdout.str() + result.stderr.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR, f"exit status {result.ret}:\n{text}"
    for word in words:
        assert word in text, f"the error lacks {word!r}:\n{text}"
    assert "Traceback" not in text, f"a traceback for a user's mistake:\n{text}"
    assert "INTERNALERROR" not in text, text


@pytest.mark.parametrize("kind", FILES)
def test_a_wrong_file(suite, kind):
    content, words = FILES[kind]
    suite.yaml(content)
    (suite.path / "folder").mkdir()
    (suite.path / "loop").symlink_to("loop")
    suite.tests("def test_nothing(): pass")
    check_usage_error(suite.run(), words)
    assert not suite.left_over()


@pytest.mark.parametrize("kind", ["unknown key", "missing image"])
def test_a_wrong_file_with_workers(suite, kind):
    content, words = FILES[kind]
    suite.yaml(content)
    suite.tests("def test_nothing(): pass")
    result = suite.run("-n", "2")
    check_usage_error(result, words)
    text = result.stdout.str() + result.stderr.str()
    assert text.count(words[1]) <= 2, f"the error is told more than once:\n{text}"


def test_a_file_that_is_not_there(suite):
    suite.tests("def test_nothing(): pass")
    check_usage_error(suite.run("--maqet-config", "nowhere.yaml"), ["nowhere.yaml"])


def test_a_file_of_100_megabytes_is_not_read(suite):
    with (suite.path / "maqet.yaml").open("wb") as file:
        file.truncate(100 << 20)
    suite.tests("def test_nothing(): pass")
    check_usage_error(suite.run(timeout=30), ["maqet.yaml", "8,388,608 bytes"])


def test_a_path_out_of_the_root(suite, monkeypatch):
    monkeypatch.setenv("MAQET_ROOT", str(suite.path))
    suite.yaml("vms:\n  web:\n    image: ../outside.qcow2\n")
    suite.tests("def test_nothing(): pass")
    check_usage_error(suite.run(), ["maqet.yaml:3:", "outside.qcow2"])


def test_a_wrong_setting(suite):
    suite.yaml("vms: {web: {image: builtin:nano}}")
    suite.tests("def test_nothing(): pass")
    check_usage_error(suite.run("--maqet-set", "vms.web.memroy=1G"), ["--maqet-set", "memroy", "'memory'"])


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_hook_that_raises_names_the_users_line(suite, workers):
    suite.yaml("vms: {web: {image: builtin:nano}}")
    suite.conftest(
        """
        def pytest_maqet_config(config, tree):
            change(tree["vms"])

        def change(vms):
            vms["wbe"]["memory"] = "1G"
        """
    )
    suite.tests("def test_nothing(): pass")
    result = suite.run("-n", workers)
    said = "ERROR: the hook pytest_maqet_config raised KeyError: 'wbe'"
    check_usage_error(result, [said, 'conftest.py:6: vms["wbe"]["memory"] = "1G"'])
    lines = result.stderr.lines
    assert lines[lines.index(said) + 1].strip() == 'conftest.py:3: change(tree["vms"])', (
        "only the user's frames"
    )
    assert not suite.left_over()


def test_an_accelerator_that_does_not_work(suite):
    suite.yaml("vms: {web: {image: builtin:nano}}")
    suite.tests("def test_it(web): pass")
    check_usage_error(suite.run("--maqet-accel", "hvf"), ["hvf"])


def test_a_raw_argument_that_names_another_accelerator(suite):
    suite.yaml("vms: {web: {image: builtin:nano, accel: tcg, arguments: [{accel: kvm}]}}")
    suite.tests("def test_it(web): pass")
    result = suite.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*VM 'web': the raw argument '-accel' names kvm, but tcg was chosen"])


def test_a_program_that_is_no_qemu(suite):
    suite.yaml("vms: {web: {image: builtin:nano, binary: /bin/true}}")
    suite.tests("def test_it(web): pass")
    result = suite.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*/bin/true did not answer as a QEMU does*", "hint: a QEMU program*`binary:`"]
    )


def test_qemu_is_not_installed(suite, monkeypatch):
    suite.yaml("vms: {web: {image: builtin:nano}}")
    suite.tests("def test_it(web): pass")
    monkeypatch.setenv("PATH", os.fspath(suite.path))
    result = suite.run()
    text = result.stdout.str()
    result.assert_outcomes(errors=1)
    assert "apt install qemu-system-x86" in text, f"the cure is missing:\n{text}"
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("machine: no-such-machine", ["no-such-machine"]),
        ("arguments: [{kernel: /dev/null}, {append: x}, {bios: /nowhere}]", ["the command line was"]),
        (
            "arguments: [{device: no-such-device}]",
            ["'no-such-device' is not a valid device", "QEMU did not start"],
        ),
    ],
)
def test_qemu_refuses(suite, yaml, words):
    suite.yaml(f"vms:\n  web:\n    image: builtin:nano\n    {yaml}\n")
    suite.tests("def test_it(web): pass\ndef test_again(web): pass")
    result = suite.run()
    result.assert_outcomes(errors=2)
    text = result.stdout.str()
    for word in words:
        assert word in text, f"the error lacks {word!r}:\n{text}"
    assert "Traceback" not in text
    assert not suite.left_over()


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ('"wbe"', ["wbe", "'web'"]),
        ("memroy='1G'", ["memroy", "memory"]),
        ("scope='galaxy'", ["galaxy"]),
        ("memory='lots'", ["memory", "lots"]),
        ("image='gone.qcow2'", ["marker of", "vms.web.image", "gone.qcow2 does not exist"]),
    ],
)
def test_a_wrong_marker_is_that_tests_collection_error(suite, workers, marker, words):
    suite.yaml("vms: {web: {image: builtin:nano}}")
    suite.tests(f"import pytest\n@pytest.mark.maqet({marker})\ndef test_it(vm): pass\n")
    suite.tests("def test_other(): pass\n", "test_other.py")
    result = suite.run("-n", workers)
    text = result.stdout.str()
    assert result.ret != 0
    for word in ["test_it.py", *words]:
        assert word in text, f"the error lacks {word!r}:\n{text}"
    assert "Traceback" not in text
    assert "INTERNALERROR" not in text, text
    assert not suite.left_over()
