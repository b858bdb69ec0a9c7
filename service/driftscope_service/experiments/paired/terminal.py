"""A paired report in the terminal: the grid, what it says, and where the whole report is.

In: the report and a rich Console. Out: text that fits the console's width without cutting a number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from driftscope_probes.paired.parts import Dropout, Weights
from driftscope_probes.paired.report import Gradient, PairedReport, Reading
from driftscope_probes.plural import counted
from driftscope_service.experiments.paired.diagnoses import diagnosed_cells, known, leading
from driftscope_service.experiments.paired.grid import grid_table, paired_grid
from driftscope_service.numbers.diagnosis_words import verdict_words
from driftscope_service.numbers.metric_words import UNDEFINED, number, seconds, share
from driftscope_service.terminal.findings import print_settings

LEGEND = (
    "Δ = log-probability by the trainer − by the engine, in nats; k3 = mean(ρ − 1 − Δ), ρ = exp Δ; "
    "S = ΣΔ over a sequence; ≠ at: place of the first token that differs, from 0. Bold: both sides "
    "compute in the same format."
)
TIMING = {
    "engine_load_s": "engine start",
    "generate_s": "generation",
    "trainer_s": "trainer",
    "analysis_s": "analysis",
}
INDENT = 2


def print_report(report: PairedReport, console: Console, *, location: str | None = None) -> None:
    """`location`: where the HTML report is; None leaves that line out."""
    cells = paired_grid(report.grid)
    grid = grid_table(cells, console.width)
    console.print(Text(_heading(report), style="bold"))
    for sentence in known(report):
        console.print(Text(sentence))
    first = leading(cells)
    if first is not None:
        console.print(Text(first.sentence))
    console.print()
    console.print(grid.table, crop=False)
    console.print()
    console.print(Text("\n".join([LEGEND, *grid.undefined]), style="dim"))
    diagnosed = diagnosed_cells(cells)
    if diagnosed:
        _print_block(console, "Rounding or not", [one.line for one in diagnosed])
    _print_block(console, "What the grid says", _reading(report.reading))
    if report.weights is not None:
        _print_block(console, "Weights and kernels", _parts_of(report.weights))
    if report.dropout is not None:
        _print_block(console, "Without dropout", _without(report.dropout))
    sides = _which_side(report)
    if sides:
        _print_block(console, "Which side carries the error", sides)
    if report.headroom is not None:
        _print_block(console, "FP16 headroom", [report.headroom["sentence"]])
    if report.gradients is not None:
        _print_block(console, "Gradients", [_gradient(row) for row in report.gradients])
    if report.notes:
        _print_block(console, "Notes", report.notes)
    print_settings(report.lint, console)
    console.print()
    console.print(Text(_timing(report.timing), style="dim"))
    if location is not None:
        # One unbroken line: a path cut into pieces cannot be copied.
        console.print(Text(f"Report: {location}"), soft_wrap=True)


def _print_block(console: Console, title: str, lines: list[str]) -> None:
    console.print()
    console.print(Text(title, style="bold"))
    for line in lines:
        console.print(Padding(Text(line), (0, 0, 0, INDENT)))


def _heading(report: PairedReport) -> str:
    request, rollout = report.request, report.grid[0].rollout
    prompts = request.prompts
    count = prompts if isinstance(prompts, int) else len(prompts)
    return (
        f"{report.model['name']}: {rollout['engine']} {rollout['engine_version']} against the "
        f"training-mode forward, {counted(count, 'prompt')} × "
        f"{counted(request.sampling.max_tokens, 'token')}, "
        f"seed {request.sampling.seed}"
    )


def _reading(reading: Reading) -> list[str]:
    """The sentence holds the figures and the published ones; their sources are below it."""
    sources = dict.fromkeys(figure.source for figure in reading.figures)
    return [reading.sentence, *(f"Published in: {source}" for source in sources)]


def _which_side(report: PairedReport) -> list[str]:
    """Of the cells that compute in one format, as training runs do; of all where there is none."""
    return [
        f"{cell.label}: {cell.report.which_side.sentence}"
        for cell in paired_grid(report.grid).selected
        if cell.report.which_side is not None
    ]


def _parts_of(weights: Weights) -> list[str]:
    return [
        f"{cell.engine_dtype} × {cell.trainer_dtype}: mean |Δ| {_number(cell.abs_diff_mean)} = "
        + " + ".join(
            f"{part.name} {_number(part.abs_diff_mean)}"
            + ("" if part.fraction is None else f" ({part.fraction:.0%} of ΣΔ²)")
            for part in cell.parts
        )
        for cell in weights.cells
    ]


def _without(dropout: Dropout) -> list[str]:
    return [
        f"{cell.engine_dtype} × {cell.trainer_dtype}: mean |Δ| {_number(cell.abs_diff_mean)} with "
        f"its draw, {_number(cell.abs_diff_mean_without)} without; "
        f"{verdict_words(cell.diagnosis['verdict']).lower()} without"
        for cell in dropout.cells
    ]


def _gradient(row: Gradient) -> str:
    difference = row.norm_relative_difference
    text = f"{row.engine_dtype} × {row.trainer_dtype}: norm {_number(row.norm)}"
    if difference:  # 0 for the fp32 mode itself
        text += f", {share(abs(difference))} {'above' if difference > 0 else 'below'} fp32"
    if row.nonfinite_values:
        text += f", {number(row.nonfinite_values)} values not finite"
    return text


def _number(value: float | None) -> str:
    return UNDEFINED if value is None else number(value)


def _timing(timing: Mapping[str, float]) -> str:
    return f"{seconds(timing['total_s'])} in all: {', '.join(_parts(timing))}."


def _parts(timing: Mapping[str, float]) -> Iterator[str]:
    for name, label in TIMING.items():
        yield f"{label} {seconds(timing[name])}"
