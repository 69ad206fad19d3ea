"""Leases: shared, gone with the process, never kept by children, never taken on a file that is no more."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from run_processes import eventually

from pytest_maqet.errors import LockTimeout, StartError
from pytest_maqet.runs import leases
from pytest_maqet.runs.leases import Lease


def free(path: Path) -> bool:
    """Whether nobody holds the lease."""
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_taken_and_given_back(tmp_path: Path) -> None:
    lease = Lease.take(tmp_path / "a.lease")
    assert lease.held
    assert lease.path.stat().st_mode & 0o777 == 0o600
    assert not os.get_inheritable(
        max(int(fd.name) for fd in Path("/proc/self/fd").iterdir() if leads(fd, lease.path))
    )
    assert not free(lease.path)
    lease.close()
    assert not lease.held
    assert free(lease.path)
    lease.close()


def leads(fd: Path, path: Path) -> bool:
    try:
        return fd.readlink() == path
    except OSError:
        return False


def test_shared_by_many(tmp_path: Path) -> None:
    held = [Lease.take(tmp_path / "a.lease") for _ in range(3)]
    for lease in held:
        assert not free(lease.path)
        lease.close()
    assert free(tmp_path / "a.lease")


def test_join_never_makes_the_file(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="the run is over"):
        Lease.join(tmp_path / "a.lease")
    assert list(tmp_path.iterdir()) == []


def test_join_of_a_held_lease(tmp_path: Path) -> None:
    first = Lease.take(tmp_path / "a.lease")
    second = Lease.join(first.path)
    first.close()
    assert not free(second.path)
    second.close()


def test_join_waits_for_a_short_look(tmp_path: Path) -> None:
    path = tmp_path / "a.lease"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        timer = threading.Timer(0.1, lambda: fcntl.flock(file, fcntl.LOCK_UN))
        timer.start()
        lease = Lease.join(path)
        timer.join()
    assert lease.held
    lease.close()


def test_join_of_a_file_removed_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "a.lease"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        def clean_up() -> None:
            path.unlink()
            fcntl.flock(file, fcntl.LOCK_UN)

        timer = threading.Timer(0.1, clean_up)
        timer.start()
        with pytest.raises(StartError, match="the run is over"):
            Lease.join(path)
        timer.join()


def test_held_exclusively_for_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "PATIENCE", 0.2)
    path = tmp_path / "a.lease"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LockTimeout, match="held exclusively by another process"):
            Lease.take(path)


def test_symbolic_link_is_no_lease(tmp_path: Path) -> None:
    (tmp_path / "a.lease").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartError, match="cannot be opened"):
        Lease.take(tmp_path / "a.lease")
    assert not (tmp_path / "elsewhere").exists()


def test_forked_child_has_no_share(tmp_path: Path) -> None:
    lease = Lease.take(tmp_path / "a.lease")
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        open_here = any(leads(fd, lease.path) for fd in Path("/proc/self/fd").iterdir())
        held = lease.held
        lease.close()
        os.write(tell, f"{held} {open_here}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(told, 20) == b"False False", "a forked child holds its parent's lease"
    os.close(told)
    os.close(tell)
    assert not free(lease.path), "the child's close() dropped the parent's lease"
    lease.close()


def test_multiprocessing_fork_does_not_keep_it(tmp_path: Path) -> None:
    lease = Lease.take(tmp_path / "a.lease")
    started = multiprocessing.get_context("fork").Event()
    child = multiprocessing.get_context("fork").Process(
        target=lambda: (started.set(), threading.Event().wait(30))
    )
    child.start()
    try:
        assert started.wait(5)
        lease.close()
        assert free(lease.path)
    finally:
        child.kill()
        child.join()
        child.close()


def test_executed_child_does_not_keep_it(tmp_path: Path) -> None:
    lease = Lease.take(tmp_path / "a.lease")
    with subprocess.Popen([sys.executable, "-c", "input()"], close_fds=False, stdin=subprocess.PIPE) as child:
        lease.close()
        # The kernel lets us go on a moment before it has closed the descriptors of the new program.
        assert eventually(lambda: free(lease.path), 1), "an executed child keeps its parent's lease"
        assert child.poll() is None
        child.communicate(b"\n")
