"""Both forms of an explanation: of an engine that ran here, and of a server from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from driftscope_probes.explain.report import ExplainReport
from driftscope_probes.explain.server.report import DOOR, ServerReport
from driftscope_service.experiments.explain.words import closer_sentence

AnyReport: TypeAlias = ExplainReport | ServerReport


def read_report(stored: Mapping[str, Any]) -> AnyReport:
    """Raises ValidationError."""
    if stored.get("door") == DOOR:
        return ServerReport.read(stored)
    return ExplainReport.read(stored)


def summarise(report: AnyReport) -> dict[str, Any]:
    """The answer, what each op comes to, and the gap with and without the ops named."""
    found: dict[str, Any] = {"side": None, "ops": [], "equal_by_op": {}}
    after = None
    if isinstance(report, ExplainReport):
        found = {
            "side": closer_sentence(report.ops),
            "ops": [{"op": one.op, "reason": one.reason} for one in report.ops],
            "equal_by_op": _equal_by_op(report),
        }
        after = None if report.verified is None else report.verified.abs_diff_mean_after
    return {
        "sentence": report.sentence,
        "verdict": report.verdict,
        "remedy": report.remedy,
        "abs_diff_mean": None if report.gap is None else report.gap.abs_diff_mean,
        "abs_diff_mean_after": after,
        **found,
    }


def _equal_by_op(report: ExplainReport) -> dict[str, float]:
    """The lowest fraction of all layers."""
    equal: dict[str, float] = {}
    for one in report.compared:
        if one.equal_fraction is not None:
            equal[one.op] = min(one.equal_fraction, equal.get(one.op, 1.0))
    return equal
