"""Gets our helper script into the guest by typing, and types the lines that call it.

Everything typed is one short line for whatever shell has the prompt; the work is done by `sh` with the
helper's file. The helper stays in a directory of its own that carries a digest of its text, so that a
second process, or a clone of the machine, finds it there.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError
from pytest_maqet.guest.console_log import ConsoleLog
from pytest_maqet.guest.serial_frames import FrameReader
from pytest_maqet.guest.serial_port import LineWriter
from pytest_maqet.guest.shell_script import BECOME_COMMAND, END_PROCESSES
from pytest_maqet.loop import Pulse

#: No typed line is longer than this: busybox ash edits lines of at most 1,023 characters.
LONGEST_LINE = 960
#: Deletes what may stand half typed at the prompt (VKILL of termios(3), and the same key in line editors).
KILL_LINE = b"\x15"
#: Where the helper may live, best first: memory, private, cleared at boot.
_PLACES = "/dev/shm /run /tmp /var/tmp"  # noqa: S108 - in the guest; the directory is made with mode 0700
_PIECE = 640


@cache
def helper_text() -> str:
    """The helper without its comments and indentation: each byte of it is typed."""
    source = Path(__file__).with_name("serial_helper.sh").read_text("utf-8")
    source = source.replace("#END_PROCESSES", END_PROCESSES).replace("BECOME_COMMAND", BECOME_COMMAND)
    lines = (line.strip() for line in source.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("#"))


def _digest() -> str:
    return hashlib.sha256(helper_text().encode()).hexdigest()[:8]


def _say(text: str) -> str:
    """A shell command that gives the answer `text`, and in whose echo nobody finds that answer."""
    return f'echo "~m""q {text} {len(text)} ~"'


def new_identity() -> str:
    """A name for one exchange: no earlier answer on the console has it."""
    return secrets.token_hex(4)


@dataclass(frozen=True)
class InstalledHelper:
    """The helper in the guest: its directory, and whether the guest has gzip."""

    directory: str
    gzip: bool

    def call(self, verb: str, identity: str, *words: str) -> bytes:
        """The line that calls the helper, and answers n where it is not there (any more)."""
        path = f"{self.directory}/h"
        arguments = " ".join((verb, identity, *words))
        missing = _say(f"{identity} n")
        return KILL_LINE + f" sh {path} {arguments}||{missing}\n".encode("ascii")


class HelperInstaller:
    """Finds the helper in the guest, or puts it there; loop-thread only."""

    def __init__(self, log: ConsoleLog, line: LineWriter, changed: Pulse, vm_name: str) -> None:
        self._log = log
        self._line = line
        self._changed = changed
        self._vm_name = vm_name

    async def greet(self, patience: float) -> tuple[InstalledHelper, bool] | None:
        """Ask the shell at the prompt where the helper may live, and whether it is there already.

        None when nobody answered for `patience` seconds. Raises ChannelError when the guest has no place for
        files or lacks base64.
        """
        identity = new_identity()
        reader = FrameReader(self._log, self._changed, identity)
        script = (
            f"for b in {_PLACES};do b=$b/.maqet-{_digest()};"
            "{ [ -O $b ]||mkdir -m 700 $b; } 2>/dev/null&&break;b=-;done;"
            "h=0 e=0 g=0;[ -s $b/h ]&&h=1;command -v base64 >/dev/null&&e=1;"
            "command -v gzip >/dev/null&&command -v gunzip >/dev/null&&g=1;"
            f't="{identity} i $b $h $e $g";echo "~m""q $t ${{#t}} ~"'
        )
        await self._line.send(KILL_LINE + f" sh -c '{script}'\n".encode("ascii"))
        frame = await reader.next("i", patience)
        if frame is None or len(frame.words) != 4:
            return None
        directory, there, encodes, zips = frame.words
        if directory == "-":
            raise ChannelError(
                f"{self._vm_name}: the serial shell can write to none of {_PLACES} in the guest",
                hint="mount a tmpfs on one of them",
            )
        if encodes != "1":
            raise ChannelError(
                f"{self._vm_name}: the guest has no base64 (of coreutils or busybox), "
                "which commands over the console need",
                hint="use the guest agent: `guest: {connect: [agent]}`",
            )
        return InstalledHelper(directory, zips == "1"), there == "1"

    async def install(self, helper: InstalledHelper, deadline: Deadline) -> bool:
        """Type the helper's text; False when a piece got lost, so that it must be begun again."""
        identity = new_identity()
        reader = FrameReader(self._log, self._changed, identity)
        text = base64.b64encode(helper_text().encode()).decode("ascii")
        typed = f"{helper.directory}/{identity}"
        for start in range(0, len(text), _PIECE):
            piece = text[start : start + _PIECE]
            line = f" printf %s {piece} >>{typed};{_say(f'{identity} a {start}')}\n"
            await self._line.send(line.encode("ascii"))
            if await reader.next("a", min(5.0, deadline.remaining)) is None:
                return False
        helper_file = f"{helper.directory}/h"
        place = (
            f" base64 -d <{typed} >{typed}.h&&mv -f {typed}.h {helper_file};rm -f {typed};"
            f"sh {helper_file} v {identity}\n"
        )
        await self._line.send(place.encode("ascii"))
        frame = await reader.next("f", min(5.0, deadline.remaining))
        return frame is not None and frame.number(0) == len(helper_text())
