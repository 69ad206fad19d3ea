"""A worker that crashed reports nothing itself: what its VMs have left is in their directories."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from pytest_maqet.deadline import Deadline, pauses
from pytest_maqet.guest.serial_frames import hide_traffic
from pytest_maqet.guest.terminal_text import TerminalText
from pytest_maqet.management.usage import used_by
from pytest_maqet.masking import MASKS, masked
from pytest_maqet.reporting.artifacts import made_folder
from pytest_maqet.runs.bounded_log import last_bytes, pieces
from pytest_maqet.runs.exit_status import read_exit
from pytest_maqet.runs.vm_directory import VmDirectory
from pytest_maqet.visible_text import visible

#: How much of a console and of QEMU's stderr is shown, in lines and in bytes of the log.
LINES = 40
BYTES = 32 * 1024
#: How long the end of a crashed worker's VMs may take, in seconds; it takes about 0.03 s.
THEIR_END = 1.0


def crash_sections(run: Path, worker: str) -> list[tuple[str, str]]:
    """Titles and texts of what the VMs show that a test of this worker used when it crashed."""
    used = used_by(run, worker)
    for pause in pauses(Deadline.after(THEIR_END)):
        if all(read_exit(directory) is not None for _, directory in used):
            break  # never, where a VM is shared: that one runs on
        time.sleep(pause)
    sections = []
    for user, directory in used:
        for log in _consoles(directory):
            if tail := _tail(log):
                sections.append((f"console of {user.vm}", tail))
        if tail := _tail(directory.stderr_log):
            sections.append((f"QEMU's stderr of {user.vm}", tail))
        ended = read_exit(directory)
        sections.append((f"QEMU of {user.vm}", ended.reason if ended is not None else "runs on"))
    return sections


def keep_logs(run: Path, worker: str, root: Path, folder: Path) -> bool:
    """Copy the full logs of these VMs into a test's folder below `root`; whether there were any."""
    kept = False
    for _user, directory in used_by(run, worker):
        for log in [*_consoles(directory), directory.stderr_log]:
            with suppress(OSError):
                if log.stat().st_size:
                    made_folder(root, folder)
                    MASKS.copy(pieces(log), folder / f"{directory.path.name}-{log.name}")
                    kept = True
    return kept


def _consoles(directory: VmDirectory) -> list[Path]:
    return sorted(directory.path.glob("serial-*.log"))


def _tail(log: Path) -> str:
    """The last lines of a log as plain text; nothing where there is none."""
    try:
        data = last_bytes(log, BYTES)
        whole = log.stat().st_size <= BYTES
    except OSError:
        return ""
    text = visible(masked(hide_traffic(TerminalText().feed(data)))).rstrip("\n")
    lines = text.split("\n")
    return "\n".join((lines if whole else lines[1:])[-LINES:])  # a line that is cut may begin in a secret
