"""`pytest-maqet schema`: the JSON Schema of the configuration, for editors."""

from __future__ import annotations

import argparse
import json

SUMMARY = "print the JSON Schema of a configuration file"
DESCRIPTION = "Prints the JSON Schema (draft 2020-12) of maqet.yaml: editors complete and check with it."


def declare(parser: argparse.ArgumentParser) -> None:
    """Tell the command's parser what to run."""
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Print the schema."""
    # Here, so that the other commands need not wait for pydantic.
    from pytest_maqet.config.json_schema import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    return 0
