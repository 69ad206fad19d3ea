"""Whatever the umask, nobody else may read what a run keeps: VMs, checkpoints, templates, records."""

from __future__ import annotations

import os


def test_everything_of_a_run_is_private_whatever_the_umask(suite, own_cache):
    suite.tests(
        """
        import os
        from pathlib import Path

        def open_to_others(folder):
            for path in Path(folder).rglob("*"):
                if not path.is_symlink() and path.stat().st_mode & 0o077:
                    yield f"{path}: {path.stat().st_mode & 0o777:04o}"

        def test_it(nano, store, maqet):
            nano.checkpoint("a")
            with maqet.start(nano.freeze()):
                found = [*open_to_others(maqet.run_dir), *open_to_others(TEMPLATES)]
            assert not found, found

        def test_next(nano, maqet):
            assert not [*open_to_others(maqet.run_dir)]
        """.replace("TEMPLATES", repr(str(own_cache / "templates")))
    )
    before = os.umask(0)
    try:
        result = suite.run()
    finally:
        os.umask(before)
    result.assert_outcomes(passed=2)
