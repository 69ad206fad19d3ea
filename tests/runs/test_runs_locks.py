"""Named locks: who waits learns who holds; who dies holds no more."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pytest_maqet.errors import LockTimeout
from pytest_maqet.runs.locks import held_lock, lock_owner

HOLD = """
import pathlib, sys, time
from pytest_maqet.runs.locks import held_lock
with held_lock(pathlib.Path(sys.argv[1]), timeout=5, what="x", owner=sys.argv[2]):
    print(flush=True)
    time.sleep(60)
"""


def holder(path: Path, owner: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path), owner], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_timeout_names_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "start.lock"
    with holder(path, "gw3, test_a.py::test_b") as other:
        lock = held_lock(path, timeout=0.2, what="the start of VM 'web'", owner="gw0")
        with pytest.raises(LockTimeout) as caught, lock:
            pytest.fail("two processes hold one lock")
        other.kill()
    text = str(caught.value)
    assert "the start of VM 'web' was locked for all of 0.2 s" in text
    assert f"gw3, test_a.py::test_b (process {other.pid}, for " in text
    assert caught.value.holder is not None
    assert caught.value.holder.startswith("gw3")


def test_dead_holder_frees_the_lock_at_once(tmp_path: Path) -> None:
    path = tmp_path / "start.lock"
    with holder(path, "gw3") as other:
        other.send_signal(signal.SIGKILL)
        other.wait()
        began = time.monotonic()
        with held_lock(path, timeout=5, what="x", owner="me"):
            assert time.monotonic() - began < 0.2
            assert str(lock_owner(path)).startswith("me (process ")


def test_released_after_the_body_and_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "start.lock"
    for _ in range(2):
        with pytest.raises(KeyError), held_lock(path, timeout=0.1, what="x", owner="me"):
            raise KeyError
    assert lock_owner(path) is None, "the holder's name outlived its hold"


def test_threads_exclude_each_other(tmp_path: Path) -> None:
    path = tmp_path / "start.lock"
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        with held_lock(path, timeout=10, what="x", owner="thread"):
            inside += 1
            most = max(most, inside)
            time.sleep(0.01)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_held_twice_in_one_process_is_a_timeout_not_a_hang(tmp_path: Path) -> None:
    path = tmp_path / "start.lock"
    outer = held_lock(path, timeout=1, what="x", owner="outer")
    inner = held_lock(path, timeout=0.1, what="x", owner="inner")
    with outer, pytest.raises(LockTimeout, match="outer"), inner:
        pytest.fail("held twice")


def test_released_in_another_thread(tmp_path: Path) -> None:
    """A fixture may be torn down in another thread than it was set up in."""
    path = tmp_path / "start.lock"
    lock = held_lock(path, timeout=1, what="x", owner="fixture")
    lock.__enter__()
    thread = threading.Thread(target=lambda: lock.__exit__(None, None, None))
    thread.start()
    thread.join()
    with held_lock(path, timeout=0.2, what="x", owner="next"):
        pass


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"owner": 1, "pid": 2, "since": "x"}', "\udcff"])
def test_unreadable_holder_is_no_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "start.lock"
    with held_lock(path, timeout=1, what="x", owner="me"):
        path.with_name("start.lock.holder").write_bytes(text.encode(errors="surrogateescape"))
        other = held_lock(path, timeout=0, what="x", owner="other")
        with pytest.raises(LockTimeout, match="did not say who it is"), other:
            pytest.fail("held twice")


def test_files_are_private(tmp_path: Path) -> None:
    path = tmp_path / "start.lock"
    with held_lock(path, timeout=1, what="x", owner="me"):
        for file in tmp_path.iterdir():
            assert file.stat().st_mode & 0o077 == 0, file.name
        assert json.loads(path.with_name("start.lock.holder").read_text())["owner"] == "me"
