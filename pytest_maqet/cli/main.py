"""The console script `pytest-maqet`: reads the arguments, runs one command, and says faults in a line.

Exit status: 0 done · 1 it failed · 2 wrong arguments · 4 wrong configuration (as pytest has it) ·
130 Ctrl-C · 141 whoever read the output went away (128 + SIGPIPE, as shells have it).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from pytest_maqet import __version__
from pytest_maqet.cli import clean, guest_build, schema
from pytest_maqet.errors import ConfigError, MaqetError

PROGRAM = "pytest-maqet"
#: Statuses other than 0; 2 is argparse's own for wrong arguments.
FAILED, WRONG_CONFIGURATION, INTERRUPTED, READER_GONE = 1, 4, 130, 141


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in our form, without the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{PROGRAM}: {message}\nhint: see `{self.prog} --help`\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (default: those of the process) name; gives the exit status.

    Raises SystemExit for `--help`, `--version` and wrong arguments, as argparse does.
    """
    try:
        chosen = _parser().parse_args(arguments)
        status: int = chosen.run(chosen)
        sys.stdout.flush()  # here, where it is known what to do when nobody reads it
    except ConfigError as error:
        return _said(str(error), WRONG_CONFIGURATION)
    except MaqetError as error:
        return _said(str(error), FAILED)
    except BrokenPipeError:
        _drop_output()
        return READER_GONE
    except OSError as error:
        _drop_output()
        where = f"{error.filename}: " if error.filename is not None else ""
        return _said(f"{where}{error.strerror or error}", FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="Real QEMU machines as pytest fixtures: what can be done outside a pytest run.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    guest = commands.add_parser("guest", help="the embedded guests", description="The embedded guests.")
    guest_commands = guest.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for group, name, command in (
        (guest_commands, "build", guest_build),
        (commands, "clean", clean),
        (commands, "schema", schema),
    ):
        command.declare(
            group.add_parser(name, help=command.SUMMARY, description=command.DESCRIPTION, allow_abbrev=False)
        )
    return parser


def _said(message: str, status: int) -> int:
    print(f"{PROGRAM}: {message}", file=sys.stderr)
    return status


def _drop_output() -> None:
    """What is still to be written goes nowhere: Python's exit would try again and complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(nowhere, 1)
    os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
