"""The handle that a test holds: one VM, started, awaited, commanded, ended."""

from __future__ import annotations

from pytest_maqet.config import VmConfig
from pytest_maqet.loop import lease_loop, release_loop
from pytest_maqet.machine.host import Host
from pytest_maqet.machine.starting import joined_life, new_life
from pytest_maqet.machine.virtual_machine import VirtualMachine
from pytest_maqet.runs.vm_directory import VmDirectory

__all__ = ["Host", "VirtualMachine", "join", "launch"]


def launch(config: VmConfig, host: Host) -> VirtualMachine:
    """Boot a VM, wait for its `ready:` list, and return its handle.

    Raises StartError, WaitTimeout, GuestPanic or QemuDied; nothing of the VM is left behind then.
    """
    loop = lease_loop()
    try:
        vm = VirtualMachine(config, host, new_life(config, host, loop))
    finally:
        release_loop(loop)
    try:
        vm.wait_ready()
        vm.set_mark()
    except BaseException:
        vm.close()
        raise
    return vm


def join(directory: VmDirectory, config: VmConfig, host: Host) -> VirtualMachine:
    """A handle on a VM that another process of this run has started and made ready.

    Closing it leaves the VM alone. Raises StartError when the VM is not there any more.
    """
    loop = lease_loop()
    try:
        vm = VirtualMachine(config, host, joined_life(config, directory, loop), owned=False)
    finally:
        release_loop(loop)
    vm.set_mark()
    return vm
