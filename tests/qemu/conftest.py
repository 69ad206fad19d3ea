"""What the tests of the QEMU layer share: a cache of their own, and the QEMU of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from qemu_start import Bench

from pytest_maqet.qemu.capabilities import Capabilities, capabilities


@pytest.fixture(autouse=True, scope="session")
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAQET_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def binary() -> Path:
    return Path("/usr/bin/qemu-system-x86_64")


@pytest.fixture(scope="session")
def caps(binary: Path) -> Capabilities:
    return capabilities(binary)


@pytest.fixture
def bench(tmp_path: Path, caps: Capabilities) -> Iterator[Bench]:
    bench = Bench(tmp_path, caps)
    yield bench
    bench.close()
