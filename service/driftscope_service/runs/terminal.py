"""An analysed step in the terminal: its comparison, and what the presets would do to it.

In: a step, its analysis and a rich Console. Out: tables that never cut a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Protocol

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from driftscope_service.numbers.metric_words import Shown, grouped, share
from driftscope_service.runs.routing_words import print_routing

LEGEND = (
    "In nats: Δ = log-probability by the trainer − by the engine, S = ΣΔ of a sequence, KL; "
    "ρ = exp Δ."
)
EFFECTS = {
    "tokens_dropped": "tokens\ndropped",
    "tokens_clipped": "tokens\nclipped",
    "sequences_dropped": "sequences\ndropped",
    "sequences_touched": "sequences\ntouched",
}
ABOUT_FILE = "schema_version"  # not about the step
#: One space of padding and one for the rule between columns, which SIMPLE_HEAD leaves blank.
GAP = 2

Groups = Mapping[str, Sequence[Shown]]


class Described(Protocol):
    """What is shown of a step besides its analysis: PushedStep, or what a service tells of one."""

    @property
    def sequences(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def metadata(self) -> Mapping[str, str]: ...


def print_analysis(
    name: str, step: Described, analysis: Mapping[str, Any], console: Console
) -> None:
    console.print(Text(f"{name}: {step.sequences:,} sequences, {step.tokens:,} tokens", "bold"))
    # Sorted: the safetensors library writes metadata in an order of its own.
    described = [f"{key} {v}" for key, v in sorted(step.metadata.items()) if key != ABOUT_FILE]
    if described:
        console.print(Text(", ".join(described), "dim"))
    groups = grouped(analysis["comparison"])
    console.print()
    console.print(_numbers(groups), crop=False)
    console.print()
    console.print(Text("\n".join([LEGEND, *_undefined(groups)]), "dim"))
    print_routing(analysis.get("routing"), console)
    _print_presets(analysis["presets"], console)


def _numbers(groups: Groups) -> Table:
    rows = list(chain.from_iterable(groups.values()))
    labels = [*groups, *(row.metric.label for row in rows)]
    table = _empty(
        [
            ("number", labels),
            ("value", [row.value for row in rows]),
            ("95 % interval", [row.interval or "" for row in rows]),
        ]
    )
    for title, shown in groups.items():
        table.add_row(Text(title, "bold"))
        for row in shown:
            cells = (row.metric.label, row.value, row.interval or "")
            table.add_row(*map(Text, cells), end_section=row is shown[-1])
    return table


def _undefined(groups: Groups) -> list[str]:
    """One line per reason: without tokens, every number has the same one."""
    labels: dict[str, list[str]] = {}
    for row in chain.from_iterable(groups.values()):
        if row.reason:
            labels.setdefault(row.reason, []).append(row.metric.label)
    return [f"Undefined, {reason}: {', '.join(names)}." for reason, names in labels.items()]


def _print_presets(presets: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """Those that would drop or clip something; the others in one line."""
    acting = {name: e for name, e in presets.items() if e.get("sequences_touched")}
    left_out = [name for name, e in presets.items() if "left_out" in e]
    console.print()
    console.print(Text("What rejection and truncation presets would do", "bold"))
    if acting:
        rows = [[name, *(share(e[key]) for key in EFFECTS)] for name, e in acting.items()]
        columns = zip(*rows, strict=True)
        table = _empty(list(zip(["preset", *EFFECTS.values()], columns, strict=True)))
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table, crop=False)
        console.print()
    idle = len(presets) - len(acting) - len(left_out)
    lines = [f"{idle} {'more ' if acting else ''}presets would drop and clip nothing."]
    if left_out:
        lines.append(f"Not tried (no advantages or tokens): {', '.join(left_out)}.")
    console.print(Text("\n".join(lines), "dim"))


def _empty(columns: Sequence[tuple[str, Sequence[str]]]) -> Table:
    """Without rows, with its own width: rich shrinks columns where the room is short."""
    widths = [max(map(cell_len, (*head.split("\n"), *cells))) for head, cells in columns]
    table = Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 0, 0, 1),
        width=sum(widths) + GAP * (len(widths) - 1),
    )
    for index, ((head, _), width) in enumerate(zip(columns, widths, strict=True)):
        table.add_column(head, justify="right" if index else "left", width=width, no_wrap=True)
    return table
