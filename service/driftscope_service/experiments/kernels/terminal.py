"""Kernel lists, verdicts, replays and speeds in the terminal. In: their JSON. Out: tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from driftscope_probes.kernels.report import KernelsCheck, KernelVerdict, Mismatch, Planted, Skipped
from driftscope_probes.verdicts import KERNEL_VERDICTS

STYLES = {
    "REFUTED": "red",
    "PROVED": "green",
    "STATIC": "green",
    "NOT_REFUTED": "yellow",
    "INCONCLUSIVE": "magenta",
}


def print_kernels(result: Mapping[str, Any], console: Console) -> None:
    table = _table("target", "op", "implementation", "dtypes", "note")
    for kernel in result["kernels"]:
        names = [kernel[name] for name in ("target", "op", "implementation")]
        table.add_row(*map(Text, (*names, " ".join(kernel["dtypes"]), kernel["note"])))
    console.print(table)
    _print_skipped(map(Skipped.read, result["skipped"]), console)


def print_verdicts(check: KernelsCheck, console: Console) -> None:
    """One line per verdict, then the counterexamples one by one: a table would cut them."""
    headings = ("dtype", "threads", "verdict", "detection", "differs on")
    table = _table("target", "op", "implementation", *headings)
    for verdict in check.verdicts:
        rate = verdict.detection_rate
        table.add_row(
            *(Text(str(getattr(verdict, name))) for name in _SUBJECT),
            Text(verdict.verdict, STYLES[verdict.verdict]),
            Text("" if rate is None else f"{rate:.0%}"),
            Text(", ".join(verdict.differs_on)),
        )
    console.print(table)
    for verdict in check.verdicts:
        if verdict.verdict in ("REFUTED", "INCONCLUSIVE"):
            _print_reason(verdict, console)
    used = {verdict.verdict for verdict in check.verdicts}
    for name, meaning in KERNEL_VERDICTS.items():
        if name in used:
            console.print(Text(f"{name}: {meaning}.", "dim"))
    _print_planted(check.planted, console)
    _print_skipped(check.skipped, console)


_SUBJECT = ("target", "op", "implementation", "dtype", "threads")


def print_replay(result: Mapping[str, Any], console: Console) -> None:
    found = result["mismatch"]
    if found is None:
        console.print(f"{result['kernel']}: no difference this time.")
        return
    console.print(Text(f"{result['kernel']}: reproduced", "red"))
    console.print(
        Text("\n".join(bits(Mismatch.read(found))), no_wrap=True), crop=False, soft_wrap=True
    )


def _print_reason(verdict: KernelVerdict, console: Console) -> None:
    console.print()
    head = f"{verdict.name} {verdict.dtype}, threads {verdict.threads}: {verdict.verdict}, "
    lines = [head + verdict.reason]
    example = verdict.counterexample
    if example is not None:
        lines += [f"  smallest: K={example.k}, N={example.n}, {example.inputs} inputs"]
        lines += [f"  {line}" for line in bits(example)]
        lines += [f"  replay: {example.replay}"]
    if verdict.remedy is not None:
        lines += [f"  what to do: {verdict.remedy}."]
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def bits(mismatch: Mismatch) -> Sequence[str]:
    """Where two calls differ and what each gave, in three lines."""
    first = mismatch.difference
    ulps = "" if first.ulps is None else f", {first.ulps:,} ULP apart"
    return [
        f"row {mismatch.row}, first at element {first.index} ({first.elements} of {first.of} "
        f"differ){ulps}",
        f"{_side(mismatch.left)}: {first.left_bits} = {first.left}",
        f"{_side(mismatch.right)}: {first.right_bits} = {first.right}",
    ]


def _side(placement: Mapping[str, Any]) -> str:
    others = [f"{name} {value}" for name, value in placement.items() if name != "count"]
    return ", ".join([f"batch of {placement['count']}", *others])


def _print_planted(planted: Planted, console: Console) -> None:
    line = f"Planted faults caught: {planted.caught} of {planted.total}."
    missed = f" Missed: {', '.join(planted.missed)}." if planted.missed else ""
    console.print(Text(line + missed, "red" if missed else ""))


def _print_skipped(skipped: Iterable[Skipped], console: Console) -> None:
    for one in skipped:
        console.print(Text(f"Left out: {one.target} ({one.reason}).", "dim"))


def _table(*headings: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in headings:
        # A name that is cut cannot be typed again; the note may wrap.
        table.add_column(heading, no_wrap=heading not in ("note", "differs on"), overflow="fold")
    return table


LEFT = ("op", "dtype")
SPEED_LEGEND = (
    "Ratios are the median over rounds of theirs to ours, above 1: ours is faster. Packed: the "
    "weight was packed once before, else in every call. Short: target missed."
)


def print_speed(result: Mapping[str, Any], console: Console) -> None:
    rows = result["rows"]
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("op", "dtype", "K×N×M", "ours", "x torch", "x vLLM", "target"):
        left = heading in LEFT
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row), style=None if row["reached"] else "yellow")
    console.print(table)
    aimed = [row for row in rows if row["target"] is not None]
    if aimed:
        reached = sum(row["reached"] for row in aimed)
        console.print(f"{reached} of {len(aimed)} reach their targets.")
    for memory in result["memory"]:
        console.print(Text(_memory(memory), "" if memory["reached"] else "yellow"), soft_wrap=True)
    console.print(Text(SPEED_LEGEND, "dim"))


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    packed = ", packed" if row["packed"] else ""
    target = "" if row["target"] is None else f"{row['target']:g}"
    return (
        *(row["op"] + packed, row["dtype"], f"{row['k']}×{row['n']}×{row['m']}"),
        f"{row['ours_s'] * 1e6:,.0f} µs",
        _ratio(row["speed_ratio"]),
        _ratio(row["vllm_ratio"]),
        target if row["reached"] else f"{target} short",
    )


def _ratio(median: float | None) -> str:
    return "" if median is None else f"{median:.2f}"


def _memory(row: Mapping[str, Any]) -> str:
    short = "" if row["reached"] else f", short of {row['target']:g}"
    return (
        f"token_logprob {row['dtype']}, {row['m']:,} tokens: {row['ours_bytes'] / 1e6:.1f} MB "
        f"extra, the plain way {row['torch_bytes'] / 1e6:.1f} MB: {row['ratio']:.1f} times "
        f"less{short}"
    )
