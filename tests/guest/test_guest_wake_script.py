"""The shell command that wakes guests without a wake port: on this host, whose clock it leaves alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_maqet.errors import ChannelError
from pytest_maqet.guest.wake_port import SEED_BYTES, WakeAnswer, new_seed
from pytest_maqet.guest.wake_script import wake_answer, wake_command

SHELLS = {"dash": ["dash"], "bash": ["bash"], "ash": ["busybox", "ash"]}
LEFT_AND_RESEEDED = WakeAnswer(clock=None, reseed=None)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="reseeding this host's random numbers needs root")


@pytest.fixture(params=SHELLS.values(), ids=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    if shutil.which(request.param[0]) is None:
        pytest.skip(f"{request.param[0]} is not installed")
    return [str(shutil.which(request.param[0])), *request.param[1:]]


@pytest.fixture
def only(tmp_path: Path):
    """`only("perl")` is a PATH where nothing else is to be found."""

    def make(*names: str) -> str:
        for name in names:
            program = sys.executable if name == "python3" else shutil.which(name)
            if program is None:
                pytest.skip(f"{name} is not installed")
            link = tmp_path / name
            link.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
            link.chmod(0o755)
        return str(tmp_path)

    return make


def said(shell: list[str], path: str, *, cut: int | None = None) -> str:
    """What the command prints; with `now=None`, so that this host's clock stays as it is."""
    command, data = wake_command(now=None, seed=new_seed())
    done = subprocess.run(
        [*shell, "-c", command],
        input=data[:cut],
        env={"PATH": path},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == b""
    return str(done.stdout.decode())


@needs_root
@pytest.mark.parametrize("name", ["perl", "python3"])
def test_reseeding(shell: list[str], only, name: str) -> None:
    printed = said(shell, only(name))
    assert printed == f"clock=left reseed={name}\n"
    assert wake_answer(printed) == LEFT_AND_RESEEDED


@pytest.mark.parametrize("name", ["perl", "python3"])
def test_who_may_not_reseed_is_told_so(only, name: str) -> None:
    unprivileged = ["/bin/sh"]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv is not installed (util-linux)")
        unprivileged = ["setpriv", "--bounding-set", "-sys_admin", "/bin/sh"]
    answer = wake_answer(said([str(shutil.which(unprivileged[0])), *unprivileged[1:]], only(name)))
    assert answer.reseed is not None
    assert answer.reseed.startswith(f"{name}: ")
    assert "not permitted" in answer.reseed


@pytest.mark.parametrize("name", ["perl", "python3"])
def test_a_seed_that_was_cut_is_not_used(shell: list[str], only, name: str) -> None:
    assert wake_answer(said(shell, only(name), cut=80)).reseed == f"{name}: no seed came"


def test_neither_perl_nor_python(shell: list[str], only) -> None:
    printed = said(shell, only())
    assert printed == "clock=left reseed=none\n"
    assert wake_answer(printed).reseed == "the guest has neither maqet-wake nor perl nor python3"


def test_the_seed_is_not_in_the_command() -> None:
    one, other = (wake_command(now=1.0, seed=new_seed()) for _ in range(2))
    assert one[0] == other[0]
    assert one[1] != other[1]


@pytest.mark.parametrize(
    ("printed", "answer"),
    [
        ("clock=done reseed=perl\n", (None, None)),
        ("motd\nclock=errno:0 reseed=errno:1\n", (None, "EPERM (Operation not permitted)")),
        ("clock=failed:date: not allowed reseed=left\n", ("date: not allowed", None)),
        ("clock=errno: reseed=errno:\n", ("errno:", "errno:")),
        ("clock=errno:99999999999999999999 reseed=errno:²\n", ("99999999999999999999", "²")),
    ],
)
def test_what_is_printed_is_understood(printed: str, answer: tuple[str | None, str | None]) -> None:
    assert wake_answer(printed) == WakeAnswer(*answer)


def test_what_is_not_understood_is_shown() -> None:
    with pytest.raises(ChannelError, match="sh: syntax error"):
        wake_answer("sh: syntax error")


def test_a_new_seed_each_time() -> None:
    assert len({new_seed() for _ in range(10)}) == 10
    assert len(new_seed()) == SEED_BYTES
