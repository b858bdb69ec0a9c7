"""Stated: what a lint says of settings that somebody stated, in passing, inside probes and pushes.

In: the settings of a probe's request or of a step's metadata, which name a few of many. Out: the
findings of rules that rest on what is said alone: there, what is not said is not known to be unset.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from driftscope_probes.errors import RequestError
from driftscope_probes.lint.base import Condition, Finding, Rule, Settings, lint
from driftscope_probes.lint.conditions import Either, Unless, Unsaid, Unset
from driftscope_probes.lint.host import settings_of_environment
from driftscope_probes.lint.names import NAMES
from driftscope_probes.lint.readers.probe_request import settings_of_request
from driftscope_probes.lint.readers.registry import read_paths
from driftscope_probes.lint.report import LintReport, lint_report
from driftscope_probes.lint.rules.registry import ALL_RULES
from driftscope_probes.sampling_notes import SAID_BY_NOTES

#: A service follows dozens of runs, whose metadata change with their settings, not with steps.
MOST_SETTINGS: Final = 256


def silent_sides(condition: Condition) -> frozenset[str]:
    """Of the settings whose absence the condition rests on: {"engine"} of Unset("engine.x")."""
    if isinstance(condition, Either):
        return frozenset().union(*map(silent_sides, condition.conditions))
    if isinstance(condition, Unset | Unsaid):
        return frozenset({_side(condition.name)})
    return _sides(condition.condition) if isinstance(condition, Unless) else frozenset()


def _sides(condition: object) -> frozenset[str]:
    """Of all settings that a condition asks for, within others too."""
    found = frozenset[str]()
    for value in (getattr(condition, name) for name in getattr(condition, "__slots__", ())):
        if isinstance(value, tuple):
            found = found.union(*map(_sides, value))
        elif isinstance(value, str) and value in NAMES:
            found |= {_side(value)}
        else:
            found |= _sides(value)
    return found


def _side(name: str) -> str:
    return name.partition(".")[0]


def rules_of_stated(rules: Iterable[Rule], known: frozenset[str] = frozenset()) -> tuple[Rule, ...]:
    """Without those that rest on silence of a side that is not `known` in full, and without those
    whose fact the notes on the sampling tell already."""
    return tuple(
        rule
        for rule in rules
        if rule.name not in SAID_BY_NOTES
        and frozenset().union(*map(silent_sides, rule.when)) <= known
    )


#: A probe has the model's folder, every setting of its engine, and the machine; its trainer is
#: driftscope's own forward, of which a framework's settings say nothing.
KNOWN_TO_A_PROBE: Final = frozenset(
    {"model", "defaults", "tokenizer", "engine", "sampling", "environment", "machine"}
)
STATED: Final = rules_of_stated(ALL_RULES)
OF_A_PROBE: Final = rules_of_stated(ALL_RULES, KNOWN_TO_A_PROBE)


@lru_cache(maxsize=MOST_SETTINGS)
def stated_findings(settings: Settings) -> tuple[Finding, ...]:
    """Kept, since a step must not wait: the next one of its run has the same settings."""
    return lint(settings, STATED)


def probe_lint(
    request: Mapping[str, Any], environment: Mapping[str, Any], folder: Path | None
) -> LintReport:
    """`request`, `environment`: as the report has them. `folder`: of the model, if there is one."""
    settings = Settings()
    if folder is not None:
        # The probe has loaded it: what is not understood here is a layout new to the readers.
        with suppress(RequestError):
            settings += _within(folder, read_paths([folder]))
    settings += settings_of_environment(environment) + settings_of_request(request)
    return lint_report(settings, rules=OF_A_PROBE)


def _within(folder: Path, settings: Settings) -> Settings:
    """Places by names of files alone: where a model lies matters only on this machine."""
    prefix = f"{folder}/"
    return Settings(tuple(replace(one, where=one.where.removeprefix(prefix)) for one in settings))
