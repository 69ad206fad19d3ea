"""Secrets are masked in the ids of tests, where these are made.

An id goes everywhere: to the terminal, JUnit XML, xdist, `--collect-only`, pytest's cache, the environment,
the names of artefacts. So it is the same everywhere, and a test is chosen by what is shown (`test_it[***]`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from typing import Any

import pytest

from pytest_maqet.masking import masked

#: What `pytest.param(…)` gives; pytest has no public name for it.
_ParameterSet = type(pytest.param())


@pytest.hookimpl(wrapper=True)
def pytest_make_parametrize_id(val: object) -> Generator[None, str | None, str | None]:
    """The id of a value that has none: of another plugin, or of what pytest would show of the value."""
    found = yield
    if found is not None:
        return masked(found)
    text = val.decode(errors="replace") if isinstance(val, bytes) else getattr(val, "pattern", val)
    if not isinstance(text, str) or (hidden := masked(text)) == text:
        return None
    return hidden


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Ids that are given come by `metafunc.parametrize`, from markers, fixtures and other plugins."""
    vars(metafunc)["parametrize"] = partial(_parametrize, metafunc.parametrize)


def _parametrize(
    parametrize: Callable[..., None],
    argnames: str | Sequence[str],
    argvalues: Iterable[Any],
    *others: Any,
    **named: Any,
) -> None:
    """As `Metafunc.parametrize`, with masked ids, which are named, or follow `indirect` (up to pytest 8)."""
    if "ids" in named:
        named["ids"] = _masked_ids(named["ids"])
    elif len(others) > 1:
        others = (others[0], _masked_ids(others[1]), *others[2:])
    parametrize(argnames, [_masked_set(value) for value in argvalues], *others, **named)


def _masked_set(value: Any) -> Any:
    if isinstance(value, _ParameterSet) and isinstance(value.id, str):
        return value._replace(id=masked(value.id))
    return value


def _masked_ids(ids: Iterable[object] | Callable[[Any], object] | None) -> Any:
    if ids is None:
        return None
    if callable(ids):
        return lambda value: _masked_id(ids(value))
    several = map(_masked_id, ids)
    return list(several) if isinstance(ids, Sequence) else several


def _masked_id(one: object) -> object:
    return masked(one) if isinstance(one, str) else one
