"""The accelerator that is chosen is one that runs guests; a named one that does not is an error."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_maqet.errors import StartError
from pytest_maqet.qemu.accelerator import choose
from pytest_maqet.qemu.capabilities import Capabilities, capabilities

#: Chooses in a process of its own and prints the name, the seconds, and how many processes it started.
CHOOSE = """
import sys, time
from pathlib import Path
from pytest_maqet.qemu.accelerator import choose
from pytest_maqet.qemu.capabilities import capabilities
binary = Path(sys.argv[1])
caps = capabilities(binary)
started = []
sys.addaudithook(lambda event, args: started.append(args[0]) if event == "subprocess.Popen" else None)
begun = time.monotonic()
found = choose(binary, caps, "auto")
print(found.name, time.monotonic() - begun, len(started))
"""
#: Gives its rights up just before it asks for KVM by name.
CHOOSE_AS_NOBODY = """
import os, sys
from pathlib import Path
from pytest_maqet.qemu.accelerator import choose
from pytest_maqet.qemu.capabilities import capabilities
binary = Path(sys.argv[1])
caps = capabilities(binary)
os.setgroups([])
os.setegid(65534)
os.seteuid(65534)
choose(binary, caps, "kvm")
"""
KVM_OPENS = os.access("/dev/kvm", os.R_OK | os.W_OK)


def choose_elsewhere(binary: Path, cache: Path) -> tuple[str, float, int]:
    done = subprocess.run(
        [sys.executable, "-c", CHOOSE, str(binary)],
        env={**os.environ, "MAQET_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    name, seconds, started = done.stdout.split()
    return name, float(seconds), int(started)


def test_auto_never_fails_and_says_why(caps: Capabilities, binary: Path) -> None:
    found = choose(binary, caps, "auto")
    assert found.name in ("kvm", "tcg")
    assert found.reason.startswith("a probe guest ran in" if found.name == "kvm" else "no kvm: "), (
        found.reason
    )


def test_tcg_is_taken_untried(caps: Capabilities, binary: Path) -> None:
    assert choose(binary, caps, "tcg").name == "tcg"


def test_a_verdict_takes_a_second_at_most_and_is_kept(binary: Path, tmp_path: Path) -> None:
    name, seconds, started = choose_elsewhere(binary, tmp_path)
    assert seconds < 3, "a KVM that pretends is found out in about a second"
    assert started == int(KVM_OPENS), "a probe guest is started where there is something to probe"
    again, _, started = choose_elsewhere(binary, tmp_path)
    assert (again, started) == (name, 0), "the verdict holds for this boot of the host"


@pytest.mark.skipif(not KVM_OPENS, reason="needs a /dev/kvm that opens")
def test_several_workers_probe_once(binary: Path, tmp_path: Path) -> None:
    capabilities(binary)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CHOOSE, str(binary)],
            env={**os.environ, "MAQET_CACHE_DIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    said = [process.communicate(timeout=60)[0].split() for process in processes]
    assert len({words[0] for words in said}) == 1
    assert sum(int(words[2]) for words in said) == 1, f"one process probed, the others read: {said}"


@pytest.mark.skipif(not KVM_OPENS, reason="needs a /dev/kvm that opens")
def test_a_kvm_named_where_it_does_not_work_is_an_error_with_the_reason(
    caps: Capabilities, binary: Path
) -> None:
    auto = choose(binary, caps, "auto")
    if auto.name == "kvm":
        assert choose(binary, caps, "kvm") == auto
        return
    started = time.monotonic()
    with pytest.raises(StartError, match="'kvm' was asked for by name, and does not work here: ") as caught:
        choose(binary, caps, "kvm")
    assert time.monotonic() - started < 3
    assert auto.reason.removeprefix("no kvm: ") in caught.value.message
    assert "--maqet-accel" in str(caught.value.hint)


@pytest.mark.parametrize("wanted", ["hvf", "nonesuch"])
def test_an_accelerator_that_was_not_compiled_in_is_an_error(
    wanted: str, caps: Capabilities, binary: Path
) -> None:
    with pytest.raises(StartError, match=f"{wanted}.* was built without it"):
        choose(binary, caps, wanted)


def program_with(changes: str, binary: Path, path: Path) -> Path:
    """A real QEMU in front of which the names of its accelerators are changed in what it answers."""
    path.write_text(
        f'#!/bin/sh\ncase "$*" in *stdio*) {binary} "$@" | sed {changes};; *) exec {binary} "$@";; esac\n'
    )
    path.chmod(0o755)
    return path


def test_a_program_without_hardware_virtualisation_uses_tcg(binary: Path, tmp_path: Path) -> None:
    own = program_with("'s/kvm-accel/xen-accel/g'", binary, tmp_path / "qemu")
    found = choose(own, capabilities(own), "auto")
    assert (found.name, found.reason) == ("tcg", "qemu was built without hardware virtualisation")


@pytest.mark.skipif(KVM_OPENS, reason="needs a host without /dev/kvm")
def test_a_missing_or_closed_device_is_explained(caps: Capabilities, binary: Path) -> None:
    with pytest.raises(StartError, match="/dev/kvm") as caught:
        choose(binary, caps, "kvm")
    assert "kvm" in str(caught.value.hint)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which only root may")
@pytest.mark.skipif(not Path("/dev/kvm").exists(), reason="needs a /dev/kvm")
def test_a_device_of_another_user_is_explained(binary: Path, tmp_path: Path) -> None:
    if Path("/dev/kvm").stat().st_mode & 0o006:
        pytest.skip("/dev/kvm is open to everybody here")
    done = subprocess.run(
        [sys.executable, "-c", CHOOSE_AS_NOBODY, str(binary)],
        env={**os.environ, "MAQET_CACHE_DIR": "/proc/none"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "/dev/kvm may not be opened by user id 65534" in done.stderr, done.stderr
    assert "usermod -aG kvm" in done.stderr


def test_a_foreign_architecture_is_not_tried(tmp_path: Path, binary: Path) -> None:
    own = program_with('\'s/"arch": "x86_64"/"arch": "sparc"/\'', binary, tmp_path / "qemu")
    caps = capabilities(own)
    assert caps.target == "sparc"
    with pytest.raises(StartError, match="it runs no sparc guests on a"):
        choose(own, caps, "kvm")
    assert choose(own, caps, "auto").name == "tcg"


def test_a_program_that_can_run_nothing_here_says_so(binary: Path, tmp_path: Path) -> None:
    own = program_with(
        '-e \'s/tcg-accel/none-a/g\' -e \'s/"arch": "x86_64"/"arch": "sparc"/\'', binary, tmp_path / "qemu"
    )
    caps = capabilities(own)
    with pytest.raises(StartError, match="can run no guest here: it was built without tcg"):
        choose(own, caps, "auto")
