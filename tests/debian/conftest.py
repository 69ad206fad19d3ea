"""The distribution guest in real VMs, by the library alone; skipped where it has not been built."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from debian_script import debian_guest

from pytest_maqet.config import VmConfig, load_config
from pytest_maqet.machine import Host, VirtualMachine, launch
from pytest_maqet.runs.run_directory import RunDirectory


@pytest.fixture(scope="session")
def server_config() -> VmConfig:
    found = debian_guest("--path")
    if found.returncode != 0:
        pytest.skip(" ".join(found.stderr.split()))
    guest = Path(found.stdout.strip())
    return load_config([guest / "maqet.yaml", Path(__file__).with_name("maqet.yaml")]).vm("server")


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    run = RunDirectory.create()
    lease = run.lease("main")
    yield Host(run=run, lease=lease.path, artifacts=tmp_path_factory.mktemp("artifacts"))
    lease.close()
    run.remove()


@pytest.fixture(scope="session")
def server(server_config: VmConfig, host: Host) -> Iterator[VirtualMachine]:
    """One booted Debian for all tests: a boot takes half a minute."""
    vm = launch(server_config, host)
    yield vm
    vm.close()
