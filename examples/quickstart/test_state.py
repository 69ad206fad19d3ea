"""States of a guest: prepared once and cloned, tried again from a checkpoint, put back to ready."""

import pytest


def fill(vm):
    vm.run("mkdir /srv && seq 1000 > /srv/rows")


@pytest.fixture(scope="session")
def filled(maqet):
    """Filled once for all workers, and for all runs while `fill` and the key stay the same."""
    return maqet.template("web", prepare=fill, key=["a thousand rows"])


@pytest.mark.parametrize("line", [1, 1000])
def test_each_test_has_a_clone(filled, vm_factory, line):
    vm = vm_factory(filled)
    assert vm.run(f"sed -n {line}p /srv/rows").stdout == f"{line}\n"
    vm.run("rm /srv/rows")  # of this clone only


def test_try_again_from_here(web):
    web.run("echo installed > /state")
    web.checkpoint("installed")
    for choice in ("one", "other"):
        web.run(f"echo {choice} >> /state")
        assert web.run("cat /state").stdout == f"installed\n{choice}\n"
        web.restore("installed")


def test_back_to_ready(web):
    web.run("rm -rf /etc")
    web.restore("ready")
    assert web.run("cat /etc/hosts").returncode == 0
