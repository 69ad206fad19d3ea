"""scripts/debian-guest where it builds nothing: where the guest is kept, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

from debian_script import debian_guest


def guest_folder(cache: Path) -> Path:
    said = debian_guest("--path", MAQET_CACHE_DIR=str(cache)).stderr
    found = re.search(r"there is no (/\S+)", said)
    assert found, said
    return Path(found[1])


def test_without_a_guest_it_says_how_to_build_one(tmp_path: Path):
    done = debian_guest("--path", MAQET_CACHE_DIR=str(tmp_path))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "not built yet" in done.stderr
    assert "make debian-guest" in done.stderr


def test_the_users_cache_directory_is_honoured(tmp_path: Path):
    done = debian_guest("--path", MAQET_CACHE_DIR="", XDG_CACHE_HOME=str(tmp_path))
    assert f"there is no {tmp_path}/pytest-maqet/guests/debian-12/" in done.stderr
    assert (tmp_path / "pytest-maqet").stat().st_mode & 0o777 == 0o700
    assert guest_folder(tmp_path / "other").parent == tmp_path / "other" / "guests" / "debian-12"


def test_a_guest_that_is_there_is_not_built_again(tmp_path: Path):
    folder = guest_folder(tmp_path)
    folder.mkdir()
    again = debian_guest(MAQET_CACHE_DIR=str(tmp_path))
    assert (again.returncode, again.stderr) == (0, f"debian guest: already built: {folder}\n")
    assert debian_guest("--path", MAQET_CACHE_DIR=str(tmp_path)).stdout == f"{folder}\n"


def test_a_cache_that_others_may_write_is_refused(tmp_path: Path):
    tmp_path.chmod(0o777)
    done = debian_guest(MAQET_CACHE_DIR=str(tmp_path))
    assert done.returncode == 1
    assert debian_guest("--path", MAQET_CACHE_DIR=str(tmp_path)).returncode == 1, (
        "nor is a guest taken from there"
    )
    assert "mode 777: only you may be able to write it" in done.stderr
    assert "MAQET_CACHE_DIR" in done.stderr


def test_what_the_host_lacks_is_said_with_its_cure(tmp_path: Path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "cat", "dirname", "sha256sum", "cut", "stat", "id", "mkdir", "uname", "env"):
        (tools / tool).symlink_to(f"/usr/bin/{tool}")
    done = debian_guest(MAQET_CACHE_DIR=str(tmp_path / "cache"), PATH=str(tools), HOME=str(tmp_path))
    assert done.returncode == 1
    assert "this host lacks" in done.stderr
    assert "apt install" in done.stderr


def test_an_unknown_argument_is_refused():
    done = debian_guest("--pth")
    assert done.returncode == 1
    assert "unknown argument '--pth'" in done.stderr
