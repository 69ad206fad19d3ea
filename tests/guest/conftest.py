"""Programs that run in guests, here on this host."""

from __future__ import annotations

from pathlib import Path

import pytest
from exec_rig import built

from pytest_maqet.guests.initramfs import EXEC_HELPER


@pytest.fixture(scope="module", params=["checked in", "compiled here"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """maqet-exec, once as it is shipped and once as this host's compiler makes it."""
    if request.param == "checked in":
        copy = tmp_path_factory.mktemp("exec") / "maqet-exec"
        copy.write_bytes(EXEC_HELPER.read_bytes())  # a checkout may have it without its mode
        copy.chmod(0o755)
        return copy
    made = built(tmp_path_factory.mktemp("exec") / "maqet-exec")
    if made is None:
        pytest.skip("gcc is not installed")
    return made
