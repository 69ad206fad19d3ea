"""`pytest-maqet schema` prints a schema that holds for the examples."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

Command = Callable[..., "subprocess.CompletedProcess[str]"]

jsonschema = pytest.importorskip("jsonschema")
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").rglob("maqet.yaml"))


def test_examples_are_valid(command: Command) -> None:
    done = command("schema")
    assert (done.returncode, done.stderr) == (0, "")
    validator = jsonschema.Draft202012Validator(json.loads(done.stdout))
    assert EXAMPLES, "there is no example to check"
    for example in EXAMPLES:
        validator.validate(yaml.safe_load(example.read_text()))
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({"vms": {"web": {"imgae": "builtin:linux"}}})
