"""A process that owns one VM. Arguments: run id, lease, the argv of the "QEMU". Prints facts as JSON lines.

Lines it obeys: `fork` (a forked child that sleeps), `spawn` (an executed child that keeps all descriptors),
`daemon` (a child that forks, leaves the session and stays), `keep` (make the keep file), `dismiss`.
"""

import json
import os
import subprocess
import sys
import time

from pytest_maqet.runs.process import QemuProcess
from pytest_maqet.runs.run_directory import RunDirectory


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def forked(*, daemon: bool) -> int:
    reader, writer = os.pipe()
    if os.fork() == 0:
        if daemon:
            os.setsid()
            if os.fork():
                os._exit(0)
        os.write(writer, str(os.getpid()).encode())
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        time.sleep(30)
        os._exit(0)
    pid = int(os.read(reader, 20))
    os.close(reader)
    os.close(writer)
    return pid


def main() -> None:
    run_id, lease_name, *argv = sys.argv[1:]
    run = RunDirectory.create(run_id)
    lease = run.lease(lease_name)
    process = QemuProcess.launch(argv, run.new_vm_directory("vm"), lease.path)
    say(run=str(run.path), vm=str(process.directory.path), qemu=process.pid)
    children = []
    for line in sys.stdin:
        match line.strip():
            case "fork":
                say(pid=forked(daemon=False))
            case "daemon":
                say(pid=forked(daemon=True))
            case "spawn":
                child = subprocess.Popen(
                    ["/bin/sleep", "30"], close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
                )
                children.append(child)
                say(pid=child.pid)
            case "keep":
                process.directory.keep_file.touch()
                say()
            case "dismiss":
                found = process.dismiss(5)
                say(reason=found.reason if found else None)


main()
