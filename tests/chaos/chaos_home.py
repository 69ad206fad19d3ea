"""Where a victim suite lives: every directory that it may write is below one, so that a listing shows all."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

from chaos_plans import Round
from chaos_processes import MARK

from pytest_maqet.host_cache import cache_dir

SUITE = Path(__file__).parent / "suite"
#: How many files a planted dead run has: removing them takes long enough to be interrupted.
DEAD_FILES = 3000


def there(folder: Path, pattern: str) -> set[Path]:
    """What matches below a folder in which others add and remove at the same time."""
    found = glob.glob(pattern, root_dir=folder)  # noqa: PTH207 - that one raises where a folder just went
    return {folder / one for one in found}


class Home:
    """A directory with a short path (sockets lie below it) for runs, cache, temporary files and the suite."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="mqc", dir="/tmp"))
        for name in ("runs", "tmp", "xdg", "home", "cache"):
            (self.path / name).mkdir(mode=0o700)
        shutil.copytree(SUITE, self.path / "suite", ignore=shutil.ignore_patterns("__pycache__", ".maqet"))
        self._answers()

    @property
    def runs(self) -> Path:
        """The base directory of runs."""
        return self.path / "runs"

    @property
    def templates(self) -> Path:
        """The kept templates."""
        return self.path / "cache" / "templates"

    @property
    def notes(self) -> Path:
        """What the suite's plugin notes of each result."""
        return self.path / "notes"

    @property
    def output(self) -> Path:
        """What the last run printed."""
        return self.path / "output"

    def stores(self) -> list[Path]:
        """Where templates may be made: the kept ones, and each run's own."""
        return [self.templates, *sorted(there(self.runs, "*/templates"))]

    def environment(self, mark: str) -> dict[str, str]:
        """The environment of a run."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MAQET_", "PYTEST_", "XDG_"))
        }
        return kept | {
            MARK: mark,
            "MAQET_RUN_BASE": str(self.runs),
            "MAQET_CACHE_DIR": str(self.path / "cache"),
            "TMPDIR": str(self.path / "tmp"),
            "XDG_RUNTIME_DIR": str(self.path / "xdg"),
            "XDG_CACHE_HOME": str(self.path / "cache"),
            "HOME": str(self.path / "home"),
            "CHAOS_NOTES": str(self.notes),
            "PYTHONPATH": str(self.path / "suite"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def start(self, wanted: Round, *arguments: str) -> tuple[subprocess.Popen[bytes], str]:
        """Start pytest in a session of its own; the process and the mark of all that come from it."""
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            # Started in the background by a shell; pytest would inherit that, and never hear of Ctrl-C.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        mark = uuid.uuid4().hex
        self.notes.unlink(missing_ok=True)
        with self.output.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "pytest", "-v", "-p", "notes", f"-n{wanted.workers}"),
                    *arguments,
                    *wanted.tests,
                ],
                cwd=self.path / "suite",
                env=self.environment(mark),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return process, mark

    def forget_templates(self) -> None:
        """The next run makes its templates anew."""
        shutil.rmtree(self.templates, ignore_errors=True)

    def plant_dead_run(self) -> None:
        """Leave a big run whose owner is dead."""
        run = self.runs / f"dead{uuid.uuid4().hex[:6]}"
        run.mkdir(mode=0o700)
        (run / "in-use.lease").touch(0o600)
        for number in range(DEAD_FILES):
            vm = run / f"vm-{number // 30}"
            vm.mkdir(mode=0o700, exist_ok=True)
            (vm / f"serial-{number}.log").touch(0o600)

    def remove(self) -> None:
        """Everything goes."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _answers(self) -> None:
        """The embedded guests and what QEMU answered before: not what is tried here."""
        for entry in cache_dir().iterdir():
            with suppress(OSError):
                if entry.name == "guests":
                    (self.path / "cache" / entry.name).symlink_to(entry)
                elif entry.name.startswith(("qemu-", "accelerator-")):
                    shutil.copytree(entry, self.path / "cache" / entry.name)
