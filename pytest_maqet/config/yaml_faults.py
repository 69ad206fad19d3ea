"""What keeps a text from being YAML, in words that help."""

from __future__ import annotations

import re

import yaml

from pytest_maqet.config.limits import Limits
from pytest_maqet.config.places import Source, place
from pytest_maqet.config.problems import config_error
from pytest_maqet.errors import ConfigError

#: What is said of a text that is nested too deeply, with the limit.
TOO_DEEP = "nested too deeply; at most {} levels are allowed"
#: Newer libyaml has a bound of its own (1,000 levels, as PyYAML 6.0.4 brings it); reading ahead, it may come
#: to that before we see the event that is over ours.
_LIBYAML_IS_TOO_DEEP = "exceeded maximum nesting depth"
_TAG_DIRECTIVE = re.compile(r"^\ufeff?%TAG", re.MULTILINE)


def refuse_tag_directives(text: str, source: Source) -> None:
    """Raise ConfigError for `%TAG` lines before anything is parsed: libyaml compares each with all others."""
    if "%TAG" in text and (found := _TAG_DIRECTIVE.search(text)):
        where = place(source, text.count("\n", 0, found.start()), 0)
        raise config_error([f"{where}: '%TAG' names tags of your own; write plain YAML without tags"])


def not_yaml(error: yaml.YAMLError, source: Source, limits: Limits) -> ConfigError:
    """The error for a text that PyYAML cannot read: place, its words, and what to do."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    context = getattr(error, "context", None)
    where = place(source, mark.line, mark.column) if mark is not None else source.name
    if problem == _LIBYAML_IS_TOO_DEEP:
        return config_error([f"{where}: {TOO_DEEP.format(limits.nesting)}"])
    said = f"{problem} ({context})" if context else problem
    hint = None
    if "\\t" in said or "tab" in said:
        hint = "YAML is indented with spaces, never with tabs"
    elif "cannot start any token" in said:
        hint = "is it a tab? YAML is indented with spaces; text that begins with @, ` or % needs quotes"
    return config_error([f"{where}: not valid YAML: {said}"], hint)
