"""A host that gives no disk, no inodes, no descriptors, no processes: told in words, cleaned up, and passed.

After each fault nothing is left, and the next start works.
"""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from resource_rig import NANO, Leftovers, acquired

from pytest_maqet import DiskError
from pytest_maqet.errors import StartError, WaitTimeout
from pytest_maqet.management import host_faults
from pytest_maqet.management.parallel import at_once
from pytest_maqet.waiting.host_disk import disk_error

BOOT = {**NANO, "start": "boot"}
DISK = {"storage": [{"name": "data", "type": "qcow2", "size": "64M"}]}
Mount = Callable[..., Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """`mount(folder, "size=4M")` puts a small file system there; skips where that is not allowed."""
    mounted: list[Path] = []

    def make(folder: Path, options: str) -> Path:
        folder.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"mode=0700,{options}", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("no file system can be mounted here")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def limited(kind: int, value: int) -> Iterator[None]:
    """A limit of this process for the time of the block."""
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


def fill(folder: Path, leave: int = 0) -> Path:
    """Take all space of a file system but `leave` bytes."""
    ballast = folder / "ballast"
    found = os.statvfs(folder)
    with ballast.open("wb") as file:
        file.write(b"x" * max(0, found.f_bavail * found.f_frsize - leave))
    return ballast


def test_a_disk_that_is_full_at_the_start(share, base, mount, leftovers):
    mount(base, "size=1M")
    manager = share({"nano": BOOT})
    ballast = fill(base)
    with pytest.raises(StartError, match="No space left on device") as caught:
        acquired(manager)
    assert caught.value.hint
    assert "full" in caught.value.hint, "what can be done about it?"
    ballast.unlink()
    assert acquired(manager, test="next").status == "running", "a full disk is remembered as the VM's failure"
    manager.close()
    leftovers.check()


def test_no_inodes(share, base, mount, leftovers):
    mount(base, "size=4M,nr_inodes=60")
    manager = share({"nano": BOOT})
    files = [base / f"file{number}" for number in range(os.statvfs(base).f_favail)]
    for file in files:
        file.touch()
    with pytest.raises(StartError, match="No space left on device") as caught:
        acquired(manager)
    assert caught.value.hint
    assert "no inodes left" in caught.value.hint, caught.value.hint
    for file in files:
        file.unlink()
    assert acquired(manager, test="next").status == "running"
    manager.close()
    leftovers.check()


def test_a_disk_that_fills_up_while_the_guest_writes(share, base, mount, leftovers):
    mount(base, "size=12M")
    manager = share({"web": {"image": "builtin:linux", "memory": "192M", "start": "boot", **DISK}})
    vm = acquired(manager, "web")
    ballast = fill(base, leave=2 << 20)
    with pytest.raises(DiskError, match="the host's disk is full: QEMU could not write data ") as caught:
        vm.run("dd if=/dev/urandom of=/dev/vda bs=1M count=4 conv=fsync")
    assert str(vm.workdir) in str(caught.value), "which disk?"
    assert vm.status == "io-error"
    with pytest.raises(DiskError):
        vm.wait.console("nothing that will ever be said")
    vm.wait.status("io-error")
    assert vm.unseen_failure() is None, "a test that was told is told twice"
    ballast.unlink()
    vm.resume()
    assert vm.run("echo $((6*7))").stdout == "42\n", "with room, the guest goes on where it was"
    manager.close()
    leftovers.check()


def test_a_full_disk_that_no_wait_saw_fails_the_test(share, base, mount):
    mount(base, "size=12M")
    manager = share({"web": {"image": "builtin:linux", "memory": "192M", "start": "boot", **DISK}})
    vm = acquired(manager, "web")
    with vm.expecting(DiskError, match="disk"):
        ballast = fill(base, leave=1 << 20)
        vm.spawn("dd if=/dev/urandom of=/dev/vda bs=1M count=4 conv=fsync")
    assert vm.unseen_failure() is None, "it was expected"
    ballast.unlink()
    vm.resume()
    vm.set_mark()
    vm.run("sync")
    fill(base)
    vm.spawn("dd if=/dev/urandom of=/dev/vda bs=1M seek=8 count=4 conv=fsync")
    with vm.qmp.events("BLOCK_IO_ERROR") as events:
        if vm.status != "io-error":
            events.get(30)
    error = vm.unseen_failure()
    assert isinstance(error, DiskError), "a test whose VM stands still for want of disk has not passed"
    assert "left in the state 'io-error'" in (vm.health() or "")


def test_a_wait_that_times_out_on_a_full_disk_says_so(share, base, mount):
    mount(base, "size=1M")
    manager = share({"nano": BOOT})
    vm = acquired(manager)
    fill(base)
    vm.console.send("hello\n")
    with pytest.raises(WaitTimeout, match=r"the disk of .* is full \(0 KiB free\): consoles and logs"):
        vm.wait.console("echo: never", timeout=0.2)


def test_few_descriptors(share, leftovers):
    manager = share({"nano": BOOT})
    acquired(manager, test="first").close()  # what is opened once and kept is open now
    opened = len(list(Path("/proc/self/fd").iterdir()))
    seen = set()
    for spare in range(1, 24, 2):
        with limited(resource.RLIMIT_NOFILE, opened + spare):
            try:
                acquired(manager, test=f"with {spare}").close()
            except StartError as error:
                seen.add(str(error).partition("hint")[2].partition("(`ulimit -n`)")[1])
    assert "(`ulimit -n`)" in seen, "no error names the limit"
    assert acquired(manager, test="next").status == "running", "with more of them it must start"
    manager.close()
    leftovers.check()


def test_small_files_only(share, leftovers):
    """As with `ulimit -f`: what a VM writes about itself does not fit into a file."""
    manager = share({"nano": NANO})
    acquired(manager, test="first").close()
    with limited(resource.RLIMIT_FSIZE, 200), pytest.raises(StartError) as caught:
        acquired(manager, test="limited")
    assert "a file may have 200 bytes here (`ulimit -f`)" in str(caught.value), "it is not said what to do"
    assert acquired(manager, test="next").status == "running", "the failed start is remembered"
    manager.close()
    leftovers.check()


def test_a_thread_that_cannot_be_had_is_done_without(monkeypatch):
    # Root is exempt from the limit of processes, so the system's answer is made up.
    import threading

    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading, "Thread", NoThread)
    done: list[int] = []
    assert at_once([lambda: done.append(1), lambda: done.append(2)], 4) == [None, None]
    assert done == [1, 2], "the caller does the work where no thread can"


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "fs.file-max"),
        (errno.EAGAIN, "pids.max"),
        (errno.ENOMEM, "memory"),
        (errno.EROFS, "MAQET_RUN_BASE"),
        (errno.EFBIG, "that size"),
    ],
)
def test_each_fault_has_a_hint_and_passes(number, hint):
    with pytest.raises(StartError, match="web could not be started") as caught, host_faults.told("web"):
        raise OSError(number, os.strerror(number), "/some/file")
    assert hint in (caught.value.hint or "")
    assert host_faults.is_passing(caught.value), "it is remembered as the VM's own failure"


def test_errors_of_the_suite_stay_what_they_are():
    with pytest.raises(FileNotFoundError), host_faults.told("web"):
        raise FileNotFoundError(errno.ENOENT, "no such file", "/its/own")
    with pytest.raises(RuntimeError, match="its own"), host_faults.told("web"):
        raise RuntimeError("its own")


def test_artifacts_that_cannot_be_written_do_not_change_the_outcome(suite, mount, leftovers: Leftovers):
    folder = mount(suite.path / "full", "size=64k")
    fill(folder)
    suite.makepyfile("def test_it(nano): assert nano.name == 'other'")
    result = suite.runpytest_subprocess(f"--maqet-artifacts={folder}", "-p", "no:cacheprovider", timeout=60)
    result.assert_outcomes(failed=1)
    told = "of nano not everything could be kept: No space left on device*"
    result.stdout.fnmatch_lines(["*AssertionError*", "*maqet artifacts*", "full/*", told])
    leftovers.check()


@pytest.mark.parametrize(
    ("nospace", "cure"), [(True, "make room"), (False, "vm.resume() tries once more")], ids=["full", "broken"]
)
def test_the_hint_is_about_the_fault(tmp_path, nospace, cure):
    event = {"node-name": "data", "operation": "write", "nospace": nospace, "reason": "Input/output error"}
    assert cure in str(disk_error("web", event, tmp_path / "disk", "context"))


def test_a_runs_directory_that_somebody_removed(suite, base, leftovers: Leftovers):
    """As a clean-up of /tmp would: what goes on goes on, and what cannot start says why."""
    suite.makepyfile(
        """
        import os, shutil

        def test_clean_up(nano, store):
            base = os.environ["MAQET_RUN_BASE"]
            os.rename(base, base + ".gone")  # at once: a clone for the next test is being made there
            shutil.rmtree(base + ".gone")
            assert (nano.status, store.status) == ("running", "running")

        def test_start(nano): pass

        def test_several(nano, store, shared): pass

        def test_by_hand(maqet): maqet.start("nano", start="boot")
        """
    )
    suite.makefile(".yaml", maqet="vms:\n" + "".join(
        f"  {name}: {{image: builtin:nano, memory: 16M, scope: {scope}}}\n"
        for name, scope in {"nano": "function", "store": "module", "shared": "run"}.items()
    ))  # fmt: skip
    result = suite.runpytest_subprocess("-p", "no:cacheprovider", "--tb=short", timeout=60)
    result.assert_outcomes(passed=1, failed=1, errors=2)
    told = "*StartError: the directory of this run, */*, is gone: somebody removed it while the run goes on"
    result.stdout.fnmatch_lines([told] * 3)
    base.mkdir(exist_ok=True)
    leftovers.check()
