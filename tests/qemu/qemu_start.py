"""Starting real QEMUs from built command lines and talking to them by a raw QMP socket."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_maqet.config import VmConfig
from pytest_maqet.qemu.capabilities import Capabilities
from pytest_maqet.qemu.command_line import CommandLine, build
from pytest_maqet.qemu.inputs import Drive, Inputs, SerialPort

#: Seconds for one answer of QEMU; it is there in milliseconds.
PATIENCE = 20.0


@dataclass
class Bench:
    """A directory, the listening sockets in it, and what they are for."""

    directory: Path
    caps: Capabilities
    _sockets: list[socket.socket] = field(default_factory=list)

    def listen(self) -> int:
        """A new listening unix socket's descriptor."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.directory / f"s{len(self._sockets)}"))
        listener.listen()
        self._sockets.append(listener)
        return listener.fileno()

    def path_of(self, fd: int) -> str:
        """The path a socket of this bench listens on."""
        return next(str(one.getsockname()) for one in self._sockets if one.fileno() == fd)

    def inputs(self, *drives: Drive, ports: int = 1, agent: bool = True, **more: Any) -> Inputs:
        """Two monitors, serial ports, sockets for agent and waking, and the drives."""
        return Inputs(
            drives=drives,
            monitors=(self.listen(), self.listen()),
            serial=tuple(
                SerialPort(f"p{n}", self.listen(), self.directory / f"port, {n}.log") for n in range(ports)
            ),
            agent=self.listen() if agent else None,
            wake=self.listen() if agent else None,
            exec=self.listen() if agent else None,
            pidfile=self.directory / "pid",
            **more,
        )

    def build(self, inputs: Inputs | None = None, **config: Any) -> CommandLine:
        """The command line of a VM called `web`."""
        return build(
            VmConfig(**{"name": "web", **config}),
            self.caps,
            "tcg",
            self.inputs() if inputs is None else inputs,
        )

    def disk(self, name: str = "disk.qcow2", form: str = "qcow2", size: str = "8M") -> Path:
        """A new image."""
        path = self.directory / name
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", form, str(path), size], check=True, timeout=PATIENCE
        )
        return path

    def close(self) -> None:
        """Close all sockets."""
        for one in self._sockets:
            one.close()


@contextlib.contextmanager
def running(bench: Bench, command_line: CommandLine) -> Iterator[Callable[..., Any]]:
    """QEMU, started and never let run; gives a function that executes a QMP command. Ends with `quit`."""
    process = subprocess.Popen(
        command_line.argv, pass_fds=command_line.fds, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(bench.path_of(command_line.fds[0]))
            # A QEMU that refuses its arguments never takes the connection up; ours would wait in the backlog.
            _stop_listening(bench)
            with client.makefile("rwb") as stream:
                yield _talk(stream, process)
                with contextlib.suppress(OSError):
                    stream.write(b'{"execute":"quit"}\n')
                    stream.flush()
                    # To the end: a monitor whose client hangs up drops commands it has not come to yet.
                    while stream.readline():
                        pass
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.communicate()


def status(bench: Bench, command_line: CommandLine) -> str:
    """What `query-status` of a started QEMU says; fails with its stderr when it does not start."""
    with running(bench, command_line) as execute:
        return str(execute("query-status")["status"])


def refusal(command_line: CommandLine) -> tuple[int, str]:
    """The exit status and stderr of a QEMU that must refuse its command line."""
    done = subprocess.run(
        command_line.argv,
        pass_fds=command_line.fds,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stderr.decode(errors="replace")


def device_lines(command_line: CommandLine, option: str = "device") -> list[str]:
    """All values of one option of a command line."""
    pairs = zip(command_line.arguments, command_line.arguments[1:], strict=False)
    return [value for name, value in pairs if name == f"-{option}"]


def only(command_line: CommandLine, option: str) -> str:
    """The value of an option that must be there exactly once."""
    found = device_lines(command_line, option)
    assert len(found) == 1, f"-{option} stands {len(found)} times in {command_line.lines()}"
    return found[0]


def model_of(command_line: CommandLine, device_id: str) -> str:
    """The model of the device with an id."""
    wanted = re.compile(rf"^([\w.-]+),(?:.*,)?id={re.escape(device_id)}(?:,|$)")
    matches = [wanted.match(line) for line in device_lines(command_line)]
    found = [match[1] for match in matches if match]
    assert len(found) == 1, f"device {device_id!r} is there {len(found)} times in {command_line.lines()}"
    return found[0]


def _stop_listening(bench: Bench) -> None:
    bench.close()


def _talk(stream: Any, process: subprocess.Popen[bytes]) -> Callable[..., Any]:
    def execute(command: str, **arguments: Any) -> Any:
        stream.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        stream.flush()
        while True:
            answer = _line(stream, process)
            if "error" in answer:
                raise AssertionError(f"QEMU refused {command}: {answer['error']}")
            if "return" in answer:
                return answer["return"]

    _line(stream, process)  # the greeting
    execute("qmp_capabilities")
    return execute


def _line(stream: Any, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    try:
        line = stream.readline()
    except ConnectionResetError:
        line = b""
    if line:
        answer: dict[str, Any] = json.loads(line)
        return answer
    _, stderr = process.communicate(timeout=PATIENCE)
    raise AssertionError(f"QEMU ended with {process.returncode}: {stderr.decode(errors='replace')}")
