"""A user who may have few processes, and a host without shared memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from resource_rig import Leftovers

import pytest_maqet

#: A user id that nobody has.
NOBODY = 54321
TEST = "def test_it(nano): assert nano.status == 'running'"


@pytest.fixture
def as_nobody(suite: pytest.Pytester, base: Path) -> list[str]:
    """A command that runs the suite as a user who is not root: root is exempt from the limit of processes."""
    setpriv, prlimit = shutil.which("setpriv"), shutil.which("prlimit")
    if os.geteuid() != 0 or setpriv is None or prlimit is None:
        pytest.skip("only root can become another user, with setpriv and prlimit")
    home = base / "home"
    home.mkdir(mode=0o700)
    for file in suite.path.glob("maqet.yaml"):
        shutil.copy(file, home)
    (home / "test_it.py").write_text(TEST)
    for path in (base, home, *home.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    paths = [str(Path(pytest_maqet.__file__).parents[1]), sysconfig.get_path("purelib")]
    variables = {"PYTHONPATH": ":".join(paths), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(home)}
    variables |= {"MAQET_CACHE_DIR": str(home / "cache"), "MAQET_RUN_BASE": str(base / "runs")}
    become = [
        setpriv,
        f"--reuid={NOBODY}",
        "--clear-groups",
        "env",
        *(f"{k}={v}" for k, v in variables.items()),
    ]
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        tried = [*become, python, "-c", "import pytest_maqet, xdist, pydantic"]
        if subprocess.run(tried, capture_output=True, cwd="/", check=False).returncode == 0:
            break
    else:
        pytest.skip("another user cannot read this Python")
    pytest_command = [python, "-m", "pytest", "-p", "no:cacheprovider", str(home)]
    return [*become, prlimit, "--nproc=LIMIT", *pytest_command]


@pytest.mark.parametrize("limit", [1, 3])
def test_few_processes(as_nobody, base, leftovers: Leftovers, limit):
    """1: QEMU cannot even be asked what it can do; 3: there is a keeper, and no QEMU."""
    command = [word.replace("LIMIT", str(limit)) for word in as_nobody]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=120, check=False)
    assert "1 error" in done.stdout, done.stdout + done.stderr
    assert "Resource temporarily unavailable" in done.stdout
    assert f"this user may have {limit} processes and threads (`ulimit -u`)" in done.stdout, done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert list((base / "runs").iterdir()) == [], "something of the run is left"
    assert leftovers.processes() == []


@pytest.mark.parametrize(
    "shm", ["mount -t tmpfs -o size=4k,mode=0555 tmpfs /dev/shm", "umount --lazy /dev/shm"]
)
def test_without_shared_memory_nothing_changes(suite, leftovers, shm):
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "--mount", "true"], check=False).returncode:
        pytest.skip("no mounts of our own here")
    suite.makepyfile(TEST)
    script = f'{shm} || exit 77; exec "$0" -m pytest -p no:cacheprovider'
    command = [unshare, "--mount", "sh", "-c", script, sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, cwd=suite.path, timeout=120, check=False)
    if done.returncode == 77:
        pytest.skip(f"this could not be done here: {shm}")
    assert done.returncode == 0, done.stdout + done.stderr
    leftovers.check()
