"""Asking a QEMU program questions by QMP, in one short-lived process that runs no guest."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_maqet.errors import StartError
from pytest_maqet.qemu.bounded_run import run_bounded

#: Seconds QEMU may take to answer; it needs some 0.05 s on an idle machine.
_PATIENCE = 30.0
#: What to do where the program is none of QEMU's, or not for this host.
WANTED = "a QEMU program (qemu-system-…) for this host is wanted: correct `binary:`"


class QuestionError(StartError):
    """QEMU did not answer; `reason` is what it said."""

    def __init__(self, message: str, *, reason: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


def ask(
    binary: Path,
    arguments: Sequence[str],
    commands: Sequence[tuple[str, dict[str, Any]]],
    *,
    hint: str | None = None,
) -> list[Any]:
    """QEMU's answers to QMP `commands`, in order; None for a command it does not know or refuses.

    `arguments` describe the machine; it is created and never run (`-S`). `hint`: what to do about no answer.
    Raises `QuestionError` when the program can't be executed, refuses its arguments, or takes too long.
    """
    asked = [("qmp_capabilities", {}), *commands, ("quit", {})]
    lines = "".join(json.dumps({"execute": name, "arguments": given}) + "\n" for name, given in asked)
    always = ("-S", "-nodefaults", "-no-user-config", "-display", "none", "-qmp", "stdio")
    done = _run([str(binary), *always, *arguments], lines.encode())
    answers = _answers(done.stdout)
    if len(answers) < len(asked):
        reason = done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}, no message"
        raise QuestionError(
            f"{binary} did not answer as a QEMU does; it said: {reason}", reason=reason, hint=hint
        )
    return answers[1 : len(commands) + 1]


def _run(argv: Sequence[str], questions: bytes) -> subprocess.CompletedProcess[bytes]:
    binary = argv[0]
    reading, writing = os.pipe()
    try:
        # Far below the 64 KiB a pipe holds. It stays open until QEMU has ended: a monitor that sees the end
        # of its input drops the commands it has not come to yet.
        os.write(writing, questions)
        return run_bounded(argv, _PATIENCE, reading)
    except subprocess.TimeoutExpired:
        raise QuestionError(
            f"{binary} did not answer in {_PATIENCE:g} s when asked what it can do", reason="no answer"
        ) from None
    except OSError as error:
        raise QuestionError(
            f"{binary} cannot be executed: {error.strerror}",
            reason=str(error.strerror),
            hint=WANTED,
        ) from error
    finally:
        os.close(reading)
        os.close(writing)


def _answers(output: bytes) -> list[Any]:
    answers: list[Any] = []
    for line in output.splitlines():
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if not isinstance(message, dict):
            continue
        if "return" in message:
            answers.append(message["return"])
        elif "error" in message:
            answers.append(None)
    return answers
