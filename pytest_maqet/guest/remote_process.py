"""A command that goes on in the guest while the test does something else; the same over every channel.

It is started by a short command that leaves it behind in a session of its own, with its outputs in files of
the guest. Everything later (is it there, what has it printed, end it) is a short command again, so the
channel is never occupied, and a restarted connection does not matter.
"""

from __future__ import annotations

import re
import signal

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError, CommandTimeout
from pytest_maqet.guest.channel import Channel
from pytest_maqet.guest.commands import CommandOutcome, CommandRequest
from pytest_maqet.guest.shell_script import BECOME_COMMAND, END_PROCESSES, command_script

#: Output is fetched in blocks of this many bytes; 64 of them at once, far below every channel's limit.
BLOCK = 64 * 1024
_BLOCKS = 64

# $1: the script that sets up the command, $2: how a shell becomes it. Prints the new directory. As the leader
# of a session, `exec setsid` leaves a child behind and ends (setsid(1)); `&` would have SIGINT ignored. In
# parentheses: what the shell around it says of a killed command is not the command's stderr.
_START = """
for b in /dev/shm /run /tmp /var/tmp; do
  d=$b/.maqet-$$-$3; mkdir -m 700 "$d" 2>/dev/null && break; d=
done
[ "$d" ] || exit 125
cat >"$d/in"; printf %s "$1" >"$d/job"; echo "$d"
exec >/dev/null 2>&1 </dev/null
w='(exec /bin/sh -c "$1" "$0" <"$0/in" >"$0/out" 2>"$0/err"); echo $? >"$0/new"; mv -f "$0/new" "$0/status"'
command -v setsid && exec setsid /bin/sh -c "$w" "$d" "$2"
/bin/sh -c "$w" "$d" "$2" &
"""
_BECOME = f'echo $$ >"$0/pid"; . "$0/job"; {BECOME_COMMAND}'
_PID = 'while [ ! -s "$1/pid" ]; do [ -f "$1/status" ] && break; sleep 0.02 || sleep 1; done; cat "$1/pid"'
# Prints the status; nothing when the process is gone without one, or its directory.
_WAIT = """
while [ ! -f "$1/status" ]; do
  [ -d "$1" ] || break
  kill -0 "$2" 2>/dev/null || [ -d "/proc/$2" ] || { sleep 1; break; }
  sleep 0.05 2>/dev/null || sleep 1
done
cat "$1/status" 2>/dev/null; exit 0
"""
# In a guest that was put back in time, the process id may be another one's: $3, its directory, tells.
_SIGNAL = '[ -d "$3" ] || exit 0' + END_PROCESSES
_DIRECTORY = re.compile(r"/[\w/.-]+/\.maqet-[\w-]+\Z")


class RemoteProcess:
    """One such command; loop-thread only. Made by `start_process`."""

    def __init__(
        self, channel: Channel, request: CommandRequest, directory: str, pid: int, vm_name: str
    ) -> None:
        self.request = request
        self.pid = pid
        self.vm_name = vm_name
        self.returncode: int | None = None
        self._channel = channel
        self._directory = directory
        self._out = bytearray()
        self._err = bytearray()
        self._open = True

    async def poll(self, deadline: Deadline) -> int | None:
        """The status, or None while it runs."""
        if self.returncode is None:
            self._take(await self._script('cat "$1/status" 2>/dev/null; exit 0', deadline), final=False)
        return self.returncode

    async def wait(self, deadline: Deadline) -> int:
        """Wait for its end and return its status.

        Raises TimeoutError at the deadline, ChannelError when the guest has forgotten it.
        """
        if self.returncode is None:
            try:
                self._take(await self._script(_WAIT, deadline, str(self.pid)), final=True)
            except CommandTimeout:
                raise TimeoutError from None
        assert self.returncode is not None
        return self.returncode

    async def signal(self, number: int, deadline: Deadline) -> None:
        """Send a signal to it and all its children; nothing happens when it has ended."""
        if self.returncode is None:
            name = signal.Signals(number).name.removeprefix("SIG")
            words = ("/bin/sh", "-c", _SIGNAL, "sh", str(self.pid), name, self._directory)
            await self._run(words, deadline)

    async def output(self, deadline: Deadline) -> tuple[bytes, bytes]:
        """What it has printed so far on stdout and stderr."""
        if self._open:
            await self._read_on("out", self._out, deadline)
            await self._read_on("err", self._err, deadline)
        return bytes(self._out), bytes(self._err)

    async def forget(self, deadline: Deadline) -> None:
        """Fetch the last output and delete its files in the guest. Idempotent."""
        if not self._open:
            return
        await self.output(deadline)
        self._open = False
        await self._script('rm -rf "$1"', deadline)

    async def _read_on(self, name: str, known: bytearray, deadline: Deadline) -> None:
        while True:
            whole = len(known) // BLOCK
            script = f'dd if="$1/{name}" bs={BLOCK} skip={whole} count={_BLOCKS} 2>/dev/null; exit 0'
            data = (await self._script(script, deadline)).stdout
            known[whole * BLOCK :] = data
            if len(data) < BLOCK * _BLOCKS:
                return

    async def _script(self, script: str, deadline: Deadline, *words: str) -> CommandOutcome:
        return await self._run(("/bin/sh", "-c", script, "sh", self._directory, *words), deadline)

    async def _run(self, words: tuple[str, ...], deadline: Deadline) -> CommandOutcome:
        return await self._channel.run(CommandRequest(words, label=str(self.request)), deadline)

    def _take(self, outcome: CommandOutcome, *, final: bool) -> None:
        text = outcome.stdout.strip()
        if text.isdigit():
            self.returncode = int(text)
        elif final:
            raise ChannelError(
                f"{self.vm_name}: the guest no longer knows the spawned command: {self.request}",
                hint="the guest was restarted or restored, or the command was killed together with the "
                "shell around it",
            )


async def start_process(
    channel: Channel, request: CommandRequest, deadline: Deadline, vm_name: str
) -> RemoteProcess:
    """Start a command and leave it running.

    Raises what `Channel.run` raises, and ChannelError when the guest has no place for its outputs.
    """
    words = ("/bin/sh", "-c", _START, "sh", command_script(request), _BECOME, channel.name)
    started = await channel.run(
        CommandRequest(words, input=request.input or b"", label=str(request)), deadline
    )
    directory = started.stdout.decode("utf-8", "replace").strip()
    if started.returncode != 0 or not _DIRECTORY.match(directory):
        raise ChannelError(
            f"{vm_name}: the command could not be started in the guest: {request}\n"
            f"{started.stderr.decode('utf-8', 'replace').strip()}",
            hint="one of /dev/shm, /run, /tmp and /var/tmp must be writable in the guest",
        )
    told = await channel.run(
        CommandRequest(("/bin/sh", "-c", _PID, "sh", directory), label=str(request)), deadline
    )
    pid = told.stdout.strip()
    if not pid.isdigit():
        raise ChannelError(f"{vm_name}: the command could not be started in the guest: {request}")
    return RemoteProcess(channel, request, directory, int(pid), vm_name)
