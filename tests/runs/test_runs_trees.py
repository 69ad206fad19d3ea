"""Trees of ours: measured as they lie on the disk, removed whole, links never followed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pytest_maqet.runs.trees import remove_tree, size_of


def test_folders_that_their_owner_may_not_look_into_are_removed() -> None:
    """As a user without root's rights, who is stopped by the mode of a folder of his own."""
    parent = Path(tempfile.mkdtemp(dir="/tmp"))
    parent.chmod(0o777)
    child = os.fork()
    if child == 0:
        os._exit(_removed_by_plain_user(parent))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = list(parent.iterdir())
    remove_tree(parent)
    assert (status, left) == (0, [])


def _removed_by_plain_user(parent: Path) -> int:
    try:
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        tree = parent / "tree"
        (tree / "closed" / "deeper").mkdir(parents=True)
        (tree / "closed" / "deeper" / "file").touch()
        (tree / "closed" / "deeper").chmod(0)
        (tree / "closed").chmod(0)
        return 0 if remove_tree(tree) else 2
    except BaseException:  # noqa: BLE001 - nothing of this child may go on in pytest
        return 3


def test_what_links_lead_to_stays(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir(mode=0o500)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "precious")
    assert remove_tree(tmp_path / "tree")
    assert (tmp_path / "precious").stat().st_mode & 0o777 == 0o500
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    assert not remove_tree(tmp_path / "link"), "a link is no tree"
    assert (tmp_path / "precious").exists()


def test_holes_take_no_room(tmp_path: Path) -> None:
    with (tmp_path / "memory").open("wb") as file:
        file.truncate(1 << 30)
        file.seek(0)
        file.write(b"x" * 8192)
    (tmp_path / "link").symlink_to("/")
    assert 8192 <= size_of(tmp_path) < 1 << 20
    assert size_of(tmp_path / "none") == 0
