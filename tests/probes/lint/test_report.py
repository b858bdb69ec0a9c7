"""A report of a lint: what was read, how many rules looked, and the same again from its JSON."""

from __future__ import annotations

import json

from driftscope_probes.lint.base import Rule, Setting, Settings
from driftscope_probes.lint.conditions import equals
from driftscope_probes.lint.report import LintReport, Source, lint_report, read_findings

RULES = tuple(
    Rule(severity, severity, (equals("engine.dtype", "fp16"),), "Why.", "Change.", "source")
    for severity in ("note", "error", "warning")
)
KNOWN = Settings(
    (
        Setting("engine.dtype", "fp16", "run.yaml: rollout.dtype"),
        Setting("engine.eager", True, "run.yaml: rollout.eager"),
        Setting("sampling.top_p", 0.9, "--command: top_p"),
    )
)


def test_it_tells_what_was_read_and_leaves_out_what_is_ignored() -> None:
    report = lint_report(KNOWN, ["warning"], RULES)
    assert [one.severity for one in report.findings] == ["error", "note"]
    assert report.read == (Source("run.yaml", 2), Source("--command", 1)) and report.settings == 3
    assert (report.rules, report.ignored) == (2, ("warning",))


def test_the_least_severity_counts_what_is_worse() -> None:
    report = lint_report(KNOWN, (), RULES)
    assert [len(report.at_least(one)) for one in ("error", "warning", "note")] == [1, 2, 3]


def test_it_is_the_same_again_from_json() -> None:
    report = lint_report(KNOWN, ["note"], RULES)
    stored = json.loads(json.dumps(report.to_dict()))
    assert LintReport.read_from(stored) == report
    # Of an older version, which said less.
    del stored["findings"][0]["cause"]
    assert read_findings(stored["findings"])[0].cause is None
