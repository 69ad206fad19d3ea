"""One configuration through the whole way that it goes in a run, and what came of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from pytest_maqet.config import load_config
from pytest_maqet.errors import ConfigError

#: Overrides as markers give them, tried on each VM of a mutant that loads.
OVERRIDES = {"memory": "64M", "storage": [{"name": "more", "size": "1M"}]}
ENVIRON = {"TOKEN": "t0ken-value", "HOME": "/root", "X": "x" * 100}


@dataclass(frozen=True)
class Judgement:
    """`fault` is None for a configuration, or a ConfigError as it should be."""

    loaded: bool
    seconds: float
    fault: str | None


def judge(path: Path) -> Judgement:
    """Load, validate, override, digest; CPU seconds are those of this thread."""
    started = time.thread_time()
    loaded, fault = False, None
    try:
        config = load_config([path], environ=ENVIRON, settings=["defaults.timeouts.stop=3"])
        loaded = True
        for name in list(config.vms)[:3]:
            config.vm(name, OVERRIDES, source="fuzz").key  # noqa: B018 - made when asked for
            config.fixture_names(name)
        config.check_files()
    except ConfigError as error:
        fault = _wrong_with(error, path)
    except BaseException as error:  # noqa: BLE001 - that is what is looked for
        fault = f"{type(error).__name__}: {error}"[:500]
    return Judgement(loaded, time.thread_time() - started, fault)


def _wrong_with(error: ConfigError, path: Path) -> str | None:
    text = str(error)
    if not all(char.isprintable() or char in "\n\t" for char in text if ord(char) < 0xA0):
        return f"control characters in {text!r}"[:500]
    if len(text) > 200_000:
        return f"a message of {len(text)} characters: {text[:200]}"
    if path.name not in text and "fuzz" not in text and "--maqet-set" not in text:
        return f"the file is not named: {text[:300]}"
    try:
        text.encode()
    except UnicodeError:
        return f"a message that no terminal takes: {text[:200]!r}"
    return None
