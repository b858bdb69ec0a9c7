"""A floor in the terminal: sigma per dtype pair with what it rests on, and the stored ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from driftscope_probes.floor.report import BASES, DtypeNoise, FloorReport, PairFloor, Sigma
from driftscope_probes.floor.store import StoredFloor
from driftscope_service.numbers.metric_words import number, seconds, shared_exponent
from driftscope_service.terminal.findings import print_settings

LEGEND = (
    "sigma: standard deviation of the noise on the logits, in nats: sqrt(Σ Δ² / Σ (1 − p)²). "
    "In parentheses the 95 % interval over sequences."
)
NO_INTERVAL = "–"


def print_floor(report: FloorReport, console: Console, folder: Path) -> None:
    """The sentence first; then every pair, and what each estimate says by itself."""
    console.print(Text(report.sentence, style="bold"), soft_wrap=True)
    console.print(Text(LEGEND, style="dim"))
    console.print()
    console.print(_pairs(report.pairs))
    for basis in dict.fromkeys(pair.basis for pair in report.pairs):
        console.print(
            Text(f"The floor is the {basis.replace('_', ' ')}: {BASES[basis]}.", style="dim")
        )
    console.print()
    console.print(_dtypes(report.dtypes))
    for note in report.notes:
        console.print(Text(note, style="dim"))
    print_settings(report.lint, console)
    console.print()
    console.print(Text(f"{seconds(report.timing['total_s'])} on {report.machine}.", style="dim"))
    console.print(Text(f"Stored in {folder}: later verdicts use it."), soft_wrap=True)


def print_stored(floors: Sequence[StoredFloor], console: Console, folder: Path) -> None:
    if not floors:
        console.print(
            Text(f"No floor is stored in {folder}; driftscope floor --model M measures one."),
            soft_wrap=True,
        )
        return
    groups: dict[tuple[str, str, str], list[StoredFloor]] = {}
    for each in floors:
        groups.setdefault((each.model, each.machine, each.measured_by), []).append(each)
    for (model, machine, origin), group in groups.items():
        how = "driftscope floor" if origin == "floor" else "a paired probe"
        console.print(Text(f"{model} on {machine}, by {how}", style="bold"), soft_wrap=True)
        table = _table("rollout", "trainer", "sigma", "95 %", "tokens", "measured")
        for each in group:
            table.add_row(
                each.rollout_dtype,
                each.trainer_dtype,
                number(each.sigma),
                _interval(each.low, each.high),
                number(each.tokens),
                each.created_at[:10],
            )
        console.print(table)


def _pairs(pairs: Sequence[PairFloor]) -> Table:
    table = _table("rollout", "trainer", "floor", "95 %", "same side", "reference", "perturbed")
    for pair in pairs:
        estimates = (pair.same_side, pair.reference, pair.perturbation)
        table.add_row(
            pair.rollout_dtype,
            pair.trainer_dtype,
            number(pair.sigma),
            _interval(pair.low, pair.high),
            *(number(estimate.sigma) for estimate in estimates),
            style="bold" if pair.rollout_dtype == pair.trainer_dtype else "",
        )
    return table


def _dtypes(dtypes: Sequence[DtypeNoise]) -> Table:
    """One side by itself."""
    table = _table(
        "by itself", "tokens", "other batch", "decoding", "against fp32", "perturbed", "embedding"
    )
    for noise in dtypes:
        figures: tuple[Sigma, ...] = (
            noise.batch_shape,
            noise.decoding,
            noise.trainer_error,
            noise.perturbation,
            noise.embedding,
        )
        table.add_row(
            noise.dtype, number(noise.decoding.tokens), *(number(each.sigma) for each in figures)
        )
    return table


def _table(*headings: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    return table


def _interval(low: float | None, high: float | None) -> str:
    return NO_INTERVAL if low is None or high is None else shared_exponent(low, high)
