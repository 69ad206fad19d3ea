"""The ownership rules with a real QEMU (no machine in it: they are about the process)."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import time
from collections.abc import Callable

import pytest
from run_processes import Owner, Watched, eventually

from pytest_maqet.runs.lock_holders import lock_holder
from pytest_maqet.runs.process import QemuProcess
from pytest_maqet.runs.run_directory import RunDirectory
from pytest_maqet.runs.sweep import sweep

QEMU = "qemu-system-x86_64"
NO_MACHINE = (QEMU, "-M", "none", "-display", "none", "-nodefaults", "-no-user-config")

pytestmark = pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"{QEMU} is not installed")


def test_monitor_on_a_passed_socket(launch: Callable[..., QemuProcess], run: RunDirectory) -> None:
    vm = run.new_vm_directory("vm")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(vm.monitor_socket(0)))
        listener.listen(1)
        fd = listener.fileno()
        monitor = (
            "-chardev",
            f"socket,id=qmp0,fd={fd},server=on,wait=off",
            "-mon",
            "chardev=qmp0,mode=control",
        )
        process = launch(*NO_MACHINE, *monitor, directory=vm, pass_fds=[fd])
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(vm.monitor_socket(0)))
        with client.makefile("rw") as qmp:
            assert "QMP" in json.loads(qmp.readline())
            qmp.write('{"execute": "qmp_capabilities"}\n')
            qmp.flush()
            assert json.loads(qmp.readline()) == {"return": {}}
            qmp.write('{"execute": "quit"}\n')
            qmp.flush()
            assert any("return" in json.loads(line) for line in qmp)
    assert select.select([process], [], [], 5)[0], "QEMU did not end after quit"
    found = process.exit()
    assert found is not None
    assert found.reason == "exited with status 0"


def test_qemu_that_refuses_its_arguments(launch: Callable[..., QemuProcess]) -> None:
    process = launch(*NO_MACHINE, "-device", "nonsense")
    assert eventually(lambda: process.exit() is not None)
    found = process.exit()
    assert found is not None
    assert found.code == 1
    assert "nonsense" in process.directory.stderr_log.read_text()


def test_qemu_of_a_killed_owner_is_gone_within_a_second(
    owner: Callable[..., Owner], watch: Callable[[int], Watched]
) -> None:
    one = owner("a", argv=NO_MACHINE)
    qemu = watch(one.facts["qemu"])
    time.sleep(0.2)  # so that QEMU is past its own start, its signal handlers set
    one.process.kill()
    assert qemu.gone(), "a real QEMU outlived its owner"


def test_stopped_qemu_goes_too(owner: Callable[..., Owner], watch: Callable[[int], Watched]) -> None:
    one = owner("a", argv=NO_MACHINE)
    qemu = watch(one.facts["qemu"])
    os.kill(qemu.pid, signal.SIGSTOP)
    one.process.kill()
    assert qemu.gone(), "a stopped QEMU outlived its owner"


def test_pid_file_tells_whose_it_is(launch: Callable[..., QemuProcess], run: RunDirectory) -> None:
    vm = run.new_vm_directory("vm")
    process = launch(*NO_MACHINE, "-pidfile", str(vm.qemu_pid_file), directory=vm)
    assert eventually(lambda: lock_holder(vm.qemu_pid_file) is not None), "QEMU does not lock its pid file"
    assert lock_holder(vm.qemu_pid_file) == process.pid
    process.kill()
    assert eventually(lambda: process.exit() is not None)
    assert lock_holder(vm.qemu_pid_file) is None
    assert vm.qemu_pid_file.exists()


def test_daemonised_stray_is_swept(
    run: RunDirectory, launch: Callable[..., QemuProcess], watch: Callable[[int], Watched]
) -> None:
    """A QEMU that slipped out of its keeper's hands (only -daemonize can) is found by its pid file."""
    vm = run.new_vm_directory("vm")
    process = launch(*NO_MACHINE, "-daemonize", "-pidfile", str(vm.qemu_pid_file), directory=vm)
    assert eventually(lambda: process.exit() is not None)
    stray = watch(lock_holder(vm.qemu_pid_file))
    assert stray.alive(), "it went by itself, and this test means nothing"
    run.close()
    assert eventually(lambda: sweep() == [run.path])  # its keeper goes first
    assert stray.gone(), "a daemonised QEMU was left behind"


def test_daemonised_stray_ends_with_its_vm(
    run: RunDirectory, launch: Callable[..., QemuProcess], watch: Callable[[int], Watched]
) -> None:
    vm = run.new_vm_directory("vm")
    process = launch(*NO_MACHINE, "-daemonize", "-pidfile", str(vm.qemu_pid_file), directory=vm)
    assert eventually(lambda: process.exit() is not None)
    stray = watch(lock_holder(vm.qemu_pid_file))
    process.dismiss(5)
    assert stray.gone(0), "a daemonised QEMU was left behind"


def test_two_hundred_millisecond_budget_of_a_launch(launch: Callable[..., QemuProcess]) -> None:
    """Ownership must not cost what a user notices; it takes about 0.03 s."""
    took = []
    for _ in range(5):
        began = time.monotonic()
        launch()
        took.append(time.monotonic() - began)
    assert min(took) < 0.2, f"starting a keeper took {min(took):.3f} s at best"
