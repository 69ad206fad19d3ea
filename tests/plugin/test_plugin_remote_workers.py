"""Workers in other directories and on other hosts: everything of a run is per host."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ending_runs import start, wait_for

from pytest_maqet.runs.run_directory import RunDirectory

YAML = """
vms:
  own: {image: builtin:nano, memory: 16M}
  shared: {image: builtin:nano, memory: 16M, scope: run}
"""
TELLS = """
import os, pytest
from pathlib import Path

@pytest.mark.parametrize("number", range(4))
def test_it(own, shared, maqet, number):
    worker, memory = os.environ["PYTEST_XDIST_WORKER"], own.config.memory >> 20
    with open("SEEN_FILE", "a") as file:
        print(worker, shared.pid, maqet.run_dir.parent, Path.cwd(), memory, file=file)
"""


@dataclass
class OtherHost:
    """What stands for another host: a server of execnet with directories of its own."""

    port: int
    checkout: Path
    run_base: Path
    server: subprocess.Popen


@pytest.fixture
def other_host(suite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherHost]:
    root = tmp_path_factory.mktemp("other")
    run_base = Path(f"{suite.run_base}-other")
    checkout = root / "checkout"
    checkout.mkdir()
    environ = dict(
        os.environ, HOME=str(root), TMPDIR=str(root), XDG_CACHE_HOME=str(root), MAQET_RUN_BASE=str(run_base)
    )
    server = subprocess.Popen(
        # Port 0, and told which it is: nobody else can have taken it.
        [sys.executable, "-u", "-m", "execnet.script.socketserver", "127.0.0.1:0"],
        cwd=checkout, env=environ, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    port = int(server.stdout.readline().rstrip().rpartition(" ")[2].rstrip(")"))
    yield OtherHost(port, checkout, run_base, server)
    server.kill()
    server.communicate()
    shutil.rmtree(run_base, ignore_errors=True)


def _seen(path: Path) -> list[list[str]]:
    return [line.split() for line in (path).read_text().splitlines()]


def test_workers_in_another_directory_share_the_runs_vms(suite, tmp_path_factory):
    """Tests, and the configuration of the checkout there; the run's VMs are those of the host."""
    there = tmp_path_factory.mktemp("there")
    for place, memory in ((suite.path, "16M"), (there, "24M")):
        (place / "vms.yaml").write_text(YAML.replace("16M", memory))
        (place / "test_it.py").write_text(TELLS.replace("SEEN_FILE", str(suite.path / "seen")))
        (place / "pytest.ini").write_text("[pytest]\n")
    result = suite.run("--tx", f"2*popen//chdir={there}", "--dist=load", "--maqet-config=vms.yaml")
    result.assert_outcomes(passed=4)
    seen = _seen(suite.path / "seen")
    assert {worker for worker, *_ in seen} == {"gw0", "gw1"}
    assert len({pid for _, pid, *_ in seen}) == 1, "a run-scoped VM of the host was started twice"
    assert {tuple(rest) for _, _, *rest in seen} == {(str(suite.run_base), str(there), "24")}
    assert suite.left_over() == []


def test_another_host_has_its_own(suite, other_host):
    for place in (suite.path, other_host.checkout):
        (place / "maqet.yaml").write_text(YAML)
        (place / "test_it.py").write_text(TELLS.replace("SEEN_FILE", str(suite.path / "seen")))
        (place / "pytest.ini").write_text("[pytest]\n")
    other_host.run_base.mkdir(mode=0o700)
    old = _dead_run(other_host.run_base)
    remote = f"socket=127.0.0.1:{other_host.port}//chdir={other_host.checkout}"
    result = suite.run("--tx", "popen", "--tx", remote, "--dist=each")
    result.assert_outcomes(passed=8)
    seen = _seen(suite.path / "seen")
    places = {worker: (base, cwd) for worker, _, base, cwd, _ in seen}
    assert places == {
        "gw0": (str(suite.run_base), str(suite.path)),
        "gw1": (str(other_host.run_base), str(other_host.checkout)),
    }
    assert len({pid for _, pid, *_ in seen}) == 2, "one run-scoped VM on each host"
    assert suite.left_over() == []
    assert not old.exists(), "dead runs of that host were not swept"
    wait_for(lambda: not list(other_host.run_base.iterdir()), 10, "the removal of the run on that host")


def test_a_killed_controller_takes_the_vms_of_other_hosts_along(suite, other_host):
    for place in (suite.path, other_host.checkout):
        (place / "maqet.yaml").write_text(YAML)
        (place / "pytest.ini").write_text("[pytest]\n")
        (place / "test_it.py").write_text(
            "import time\nfrom pathlib import Path\n"
            f"def test_it(own, shared):\n    Path({str(suite.path / 'up')!r}).touch()\n    time.sleep(3600)\n"
        )
    remote = f"socket=127.0.0.1:{other_host.port}//chdir={other_host.checkout}"
    run = start(suite, "--tx", remote, "--dist=load")
    try:
        wait_for((suite.path / "up").exists, 60, "the start of the VMs")
    finally:
        run.kill()
        run.wait()
    wait_for(lambda: not list(other_host.run_base.iterdir()), 60, "the end of the run on that host")
    assert not [line for line in suite.left_over() if str(other_host.run_base) in line]


def _dead_run(base: Path) -> Path:
    before = os.environ["MAQET_RUN_BASE"]
    os.environ["MAQET_RUN_BASE"] = str(base)
    try:
        run = RunDirectory.create("dead")
        run.close()
    finally:
        os.environ["MAQET_RUN_BASE"] = before
    return run.path
