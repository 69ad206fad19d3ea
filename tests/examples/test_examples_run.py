"""What README and examples/ show is what runs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "examples" / "quickstart"


def block(language: str) -> str:
    """The README's first code block in this language."""
    found = re.search(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found, f"README.md has no {language} block"
    return found[1]


def test_the_first_five_minutes_of_the_readme(pytester: pytest.Pytester):
    (pytester.path / "maqet.yaml").write_text(block("yaml"))
    (pytester.path / "test_web.py").write_text(block("python"))
    pytester.runpytest_subprocess("-p", "no:cacheprovider", timeout=300).assert_outcomes(passed=3)


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "two workers"])
def test_quickstart(pytester: pytest.Pytester, workers: list[str]):
    shutil.copytree(
        QUICKSTART, pytester.path / "quickstart", ignore=shutil.ignore_patterns("__pycache__", ".*")
    )
    result = pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", "--rootdir", "quickstart", "-c", "quickstart/pyproject.toml", "quickstart",
        "-W", "error", "--strict-markers", *workers, timeout=600,
    )  # fmt: skip
    result.assert_outcomes(passed=20)


def test_every_example_the_readme_names_is_there():
    for name in re.findall(r"\((examples/[^)]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / name).exists(), f"README.md links to {name}, which does not exist"


@pytest.mark.parametrize("listing", ["--fixtures", "--markers", "--setup-plan"])
def test_listings_work_and_start_nothing(pytester: pytest.Pytester, listing: str):
    shutil.copytree(
        QUICKSTART, pytester.path / "quickstart", ignore=shutil.ignore_patterns("__pycache__", ".*")
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error", "--rootdir", "quickstart",
        "-c", "quickstart/pyproject.toml", "quickstart", listing, timeout=60)  # fmt: skip
    assert result.ret == 0
    text = result.stdout.str()
    assert "VM starts" not in text, f"{listing} has started VMs:\n{text}"
    shown = {
        "--fixtures": "VM 'web' (quickstart/maqet.yaml:5)",
        "--markers": "pytest.mark.maqet",
        "--setup-plan": "web",
    }
    assert shown[listing] in text
