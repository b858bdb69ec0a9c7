"""Speed of the kernels in the terminal. In: the JSON of `kernels bench`. Out: a table and lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

LEFT = ("op", "dtype")
LEGEND = (
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
    console.print(Text(LEGEND, "dim"))


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
