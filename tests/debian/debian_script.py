"""Runs scripts/debian-guest."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "debian-guest"


def debian_guest(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script with these arguments, and these variables added to the environment."""
    env: Mapping[str, str] = {**os.environ, **environment}
    return subprocess.run(
        [SCRIPT, *arguments], env=env, capture_output=True, text=True, timeout=60, check=False
    )
