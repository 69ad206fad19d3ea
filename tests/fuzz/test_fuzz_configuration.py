"""A few hundred mutants, and the corpus as it stands; 100,000 are a matter of minutes by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from judging import ENVIRON
from mutations import CORPUS

from pytest_maqet.config import load_config

RUN = Path(__file__).with_name("fuzz_configurations.py")


@pytest.mark.parametrize("text", CORPUS, ids=range(len(CORPUS)))
def test_the_corpus_is_valid(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "maqet.yaml"
    path.write_bytes(text)
    assert load_config([path], environ=ENVIRON).vms


def test_mutants_are_loaded_or_refused() -> None:
    done = subprocess.run(
        [sys.executable, str(RUN), "--count", "400", "--seed", "7"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 faults" in done.stdout
