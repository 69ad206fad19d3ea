"""From a guest's panic, or QEMU's death, to the exception of a wait in flight."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from statistics import median

from library_vms import a_run, a_vm
from measuring import Check, Figures, milliseconds

from pytest_maqet import GuestPanic, QemuDied, VirtualMachine
from pytest_maqet.machine import Host, launch

MOST_SECONDS = 0.100
SAMPLES = 20
#: How long the wait waits before anything happens, in seconds: it must be asleep by then.
ASLEEP = 0.05


def measure() -> Figures:
    """Three kinds of failure, each as often as `SAMPLES` says."""
    with a_run() as host:
        kinds = {
            "SIGKILL of QEMU, from the signal": died(host),
            "panic told by pvpanic, from QEMU's own time stamp of the event": panicked(host),
            "panic text on the console, from sending the guest the word that makes it panic": panic_read(
                host
            ),
        }
    return Figures(
        ("failure", "median", "max", "samples"),
        [
            (kind, milliseconds(median(found)), milliseconds(max(found)), str(len(found)))
            for kind, found in kinds.items()
        ],
        [
            Check(
                f"within {milliseconds(MOST_SECONDS)} ({kind.partition(',')[0]})",
                f"at most {milliseconds(max(found))}",
                max(found) <= MOST_SECONDS,
            )
            for kind, found in kinds.items()
        ],
    )


def died(host: Host) -> list[float]:
    """QEMU is killed; the same VM is booted again each time."""
    with closing(launch(a_vm("nano"), host)) as vm:
        found = []
        for _ in range(SAMPLES):
            found.append(_latency(vm, QemuDied, lambda: os.kill(vm.pid, signal.SIGKILL)))
            vm.start()
        return found


def panicked(host: Host) -> list[float]:
    """The guest tells pvpanic; patterns on the console are off, so that nothing else ends the wait."""
    with closing(launch(a_vm("nano", fail_on=False), host)) as vm:
        found = []
        for _ in range(SAMPLES):
            with vm.qmp.events("GUEST_PANICKED") as panics:
                _latency(vm, GuestPanic, lambda: vm.console.send("panic\n"))
                ended = time.time()
                stamp = panics.get(timeout=5)["timestamp"]
            found.append(ended - stamp["seconds"] - stamp["microseconds"] / 1e6)
            vm.reset(wait=True)
        return found


def panic_read(host: Host) -> list[float]:
    """The guest panics in words; its own way to them is in the time."""
    with closing(launch(a_vm("nano"), host)) as vm:
        found = []
        for _ in range(SAMPLES):
            found.append(_latency(vm, GuestPanic, lambda: vm.console.send("panic\n")))
            vm.reset(wait=True)
        return found


def _latency(vm: VirtualMachine, kind: type[Exception], strike: Callable[[], None]) -> float:
    """Seconds from `strike`, in another thread, to the end of a wait for what never comes."""
    struck = 0.0

    def soon() -> None:
        nonlocal struck
        time.sleep(ASLEEP)
        struck = time.perf_counter()
        strike()

    thread = threading.Thread(target=soon)
    thread.start()
    try:
        vm.wait.console("this never comes", timeout=30)
    except kind:
        return time.perf_counter() - struck
    finally:
        thread.join()
    raise AssertionError("what never comes came")
