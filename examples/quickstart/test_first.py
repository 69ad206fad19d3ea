"""The first minutes: a fixture for each VM, booted, pristine, this test's own."""

import pytest


def test_kernel(web):
    assert web.run("uname -s").stdout == "Linux\n"


def test_qmp(vm):  # `vm` is the default VM, or the one that a marker names
    assert vm.qmp.execute("query-status")["status"] == "running"


@pytest.mark.maqet("store", memory="320M")  # pick a VM, change it for this test
def test_more_memory(vm):
    total = int(vm.run("grep MemTotal /proc/meminfo | tr -dc 0-9").stdout)
    assert total > 260 * 1024, f"the guest sees {total} KiB"


def test_reset(vm):
    vm.reset()
    vm.wait.event("RESET", timeout=5)
    vm.wait.console("guest ready")
