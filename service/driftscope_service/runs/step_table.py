"""The steps of a folder, one per line: what `analyze FOLDER` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from driftscope_service.terminal.listing import print_list

COLUMNS: Final = ("step", "sequences", "tokens", "mean |Δ|", "k3", "verdict", "cause")


def print_steps(analyses: Mapping[str, Mapping[str, Any]]) -> None:
    """analyses: by the number of the step."""
    print_list(COLUMNS, (_row(step, analysis) for step, analysis in analyses.items()))


def _row(step: str, analysis: Mapping[str, Any]) -> tuple[str, ...]:
    comparison, diagnosis = analysis["comparison"], analysis["diagnosis"]
    causes = diagnosis["causes"]
    return (
        *(step, f"{comparison['sequences']:,}", f"{comparison['tokens']:,}"),
        *(_number(comparison["abs_diff_mean"]), _number(comparison["kl_k3"])),
        *(diagnosis["verdict"], causes[0]["name"] if causes else ""),
    )


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"
