"""Starts that fail: one error that says everything, and nothing left behind."""

import pytest

from pytest_maqet import MaqetError, StartError, WaitTimeout


def leftovers(host) -> list[str]:
    return [path.name for path in host.run.path.iterdir() if path.name.startswith("web")]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"machine": "no-such-machine"}, ["no-such-machine"]),
        ({"arguments": ["no-such-option"]}, ["no-such-option", "the command line was"]),
        ({"arguments": [{"device": "no-such-device"}]}, ["no-such-device", "exited with status 1"]),
        ({"binary": "/bin/false"}, ["/bin/false"]),
        ({"binary": "no-such-qemu"}, ["no-such-qemu"]),
        ({"image": "builtin:moon"}, ["moon", "builtin:nano"]),
    ],
)
def test_qemu_refuses(boot, host, keys, words):
    with pytest.raises(MaqetError) as caught:
        boot(**{"image": None, **keys})
    for word in words:
        assert word in str(caught.value), f"the error lacks {word!r}:\n{caught.value}"
    assert not leftovers(host), "the failed start left its directory"


@pytest.mark.parametrize("what", ["missing", "directory", "dangling", "loop"])
def test_an_image_that_cannot_be_used(boot, host, tmp_path, what):
    path = tmp_path / "disk.qcow2"
    if what == "directory":
        path.mkdir()
    elif what == "dangling":
        path.symlink_to(tmp_path / "nowhere")
    elif what == "loop":
        path.symlink_to(path)
    with pytest.raises(StartError) as caught:
        boot(image=str(path))
    assert str(path) in str(caught.value)
    assert not leftovers(host)


def test_a_vm_that_does_not_become_ready_is_gone(boot, host):
    with pytest.raises(WaitTimeout, match="/never/") as caught:
        boot(ready=[{"console": "never", "timeout": 0.1}])
    assert "guest ready" in str(caught.value), "the console's tail is missing"
    assert not leftovers(host)


def test_each_entry_of_ready_has_its_own_timeout(boot):
    with pytest.raises(WaitTimeout, match=r"0\.1 s"):
        boot(ready=[{"console": "guest ready"}, {"console": "never", "timeout": 0.1}])


def test_without_a_ready_list_an_image_of_ones_own_is_ready_when_it_runs(boot):
    assert boot(image=None, ready=None).status == "running"


def test_ready_by_a_function(boot, tmp_path, monkeypatch):
    (tmp_path / "my_checks.py").write_text(
        "calls = []\ndef third_time(vm):\n    calls.append(vm.name)\n    return len(calls) == 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    boot(ready=[{"call": "my_checks:third_time"}])
    import my_checks

    assert my_checks.calls == ["web"] * 3
