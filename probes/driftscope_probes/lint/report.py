"""Report of a lint: what was found, in what was read, by how many rules. Free of torch.

In: Settings. Out: LintReport, the same for the command, the API, the page, probes and pushes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from driftscope_probes.lint.base import SEVERITIES, Finding, Rule, Settings, Severity, lint
from driftscope_probes.lint.rules.registry import ALL_RULES


@dataclass(frozen=True, slots=True)
class Source:
    name: str  # a file, as it was given
    settings: int  # how many a rule may ask for


@dataclass(frozen=True, slots=True)
class LintReport:
    findings: tuple[Finding, ...]  # most severe first
    read: tuple[Source, ...]  # an empty answer is not nothing read
    rules: int  # looked at
    ignored: tuple[str, ...] = ()  # names of the rules that were left out

    def at_least(self, severity: Severity) -> tuple[Finding, ...]:
        most = SEVERITIES.index(severity)
        return tuple(one for one in self.findings if SEVERITIES.index(one.severity) <= most)

    @property
    def settings(self) -> int:
        return sum(source.settings for source in self.read)

    def to_dict(self) -> dict[str, Any]:
        return {
            "findings": [finding.to_dict() for finding in self.findings],
            "read": [{"name": one.name, "settings": one.settings} for one in self.read],
            "rules": self.rules,
            "ignored": list(self.ignored),
        }

    @staticmethod
    def read_from(stored: Mapping[str, Any]) -> LintReport:
        """What `to_dict` gave, possibly of an older version."""
        return LintReport(
            read_findings(stored["findings"]),
            tuple(Source(one["name"], one["settings"]) for one in stored["read"]),
            stored["rules"],
            tuple(stored["ignored"]),
        )


def read_findings(stored: Collection[Mapping[str, Any]]) -> tuple[Finding, ...]:
    names = (*Finding.__dataclass_fields__,)
    return tuple(Finding(*(one.get(name) for name in names)) for one in stored)  # type: ignore[arg-type]


def lint_report(
    settings: Settings, ignore: Collection[str] = (), rules: Sequence[Rule] = ALL_RULES
) -> LintReport:
    """`ignore`: names of rules."""
    asked = [rule for rule in rules if rule.name not in ignore]
    counts = Counter(one.where.partition(": ")[0] for one in settings)
    return LintReport(
        lint(settings, asked),
        tuple(Source(name, count) for name, count in counts.items()),
        len(asked),
        tuple(rule.name for rule in rules if rule.name in ignore),
    )
