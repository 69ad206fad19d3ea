"""Real VMs by the library alone, without the plugin's fixtures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_maqet.config import VmConfig, load_config
from pytest_maqet.machine import Host, VirtualMachine, launch
from pytest_maqet.runs.run_directory import RunDirectory

Boot = Callable[..., VirtualMachine]


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    run = RunDirectory.create()
    lease = run.lease("main")
    yield Host(run=run, lease=lease.path, artifacts=tmp_path_factory.mktemp("artifacts"))
    lease.close()
    run.remove()


@pytest.fixture
def boot(host: Host, tmp_path: Path) -> Iterator[Boot]:
    """`boot(image="builtin:linux", memory="128M")` gives a VM that ends with the test."""
    started: list[VirtualMachine] = []

    def start(image: str | Path | None = "builtin:nano", **keys: Any) -> VirtualMachine:
        yaml = tmp_path / "maqet.yaml"  # JSON is YAML
        yaml.write_text(json.dumps({"vms": {"web": {"image": image and str(image), **keys}}}))
        started.append(launch(load_config([yaml]).vm("web"), host))
        return started[-1]

    yield start
    for vm in started:
        vm.close()


@pytest.fixture(scope="module")
def linux(host: Host) -> Iterator[VirtualMachine]:
    """One Linux guest for a module's tests that leave it as they found it."""
    config = VmConfig.model_validate(
        {"name": "linux", "image": "builtin:linux", "network": [{"user": {"forward": {"http": 80}}}]}
    )
    vm = launch(config, host)
    yield vm
    vm.close()


@pytest.fixture
def marked_linux(linux: VirtualMachine) -> VirtualMachine:
    linux.set_mark()
    return linux
