"""Columns of the grid in a terminal: what stands in them, and which go first when room is short.

In: the comparison of a cell. Out: two short lines per column, never cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from driftscope_service.export.number_format import (
    number,
    one_minus,
    share,
    shared_exponent,
)

Comparison = Mapping[str, Any]
Lines = tuple[str, str]
NO_VALUE = "–"  # the reasons stand below the table


@dataclass(frozen=True, slots=True)
class Column:
    heading: Lines
    names: tuple[str, ...]  # of the numbers it shows, as `undefined` gives the reasons
    lines: Callable[[Comparison], Lines]
    rank: int  # the highest rank is dropped first; 0 always stays


def _text(comparison: Comparison, name: str, write: Callable[[float], str] = number) -> str:
    value = comparison[name]
    return NO_VALUE if value is None else write(value)


def _column(
    heading: Lines, *names: str, rank: int, write: Callable[[float], str] = number
) -> Column:
    def lines(comparison: Comparison) -> Lines:
        first, *second = (_text(comparison, name, write) for name in names)
        return first, second[0] if second else ""

    return Column(heading, names, lines, rank)


def _mean_with_interval(comparison: Comparison) -> Lines:
    limits = comparison["intervals"].get("abs_diff_mean")
    return _text(comparison, "abs_diff_mean"), shared_exponent(*limits) if limits else ""


def _equal_and_first(comparison: Comparison) -> Lines:
    return (
        _text(comparison, "bitwise_equal_fraction", share),
        _text(comparison, "first_differing_token"),
    )


MEAN = "abs_diff_mean"
OUTSIDE = ("ratio_share_outside_0p5_2", "ratio_share_outside_0p9_1p1")
EQUAL = ("bitwise_equal_fraction", "first_differing_token")
COLUMNS = (
    _column(("tokens", ""), "tokens", rank=3),
    Column(("mean |Δ|", "95% interval"), (MEAN, f"intervals.{MEAN}"), _mean_with_interval, rank=0),
    _column(("p99 |Δ|", "max |Δ|"), "abs_diff_p99", "abs_diff_max", rank=1),
    _column(("k3", ""), "kl_k3", rank=0),
    _column(("1−Pearson", ""), "prob_pearson", rank=5, write=one_minus),
    _column(("ρ∉[0.5,2]", "ρ∉[0.9,1.1]"), *OUTSIDE, rank=2, write=share),
    _column(("std S", ""), "seq_logratio_std", rank=6),
    _column(("1−ESS/n", ""), "ess_ratio_token", rank=7, write=one_minus),
    Column(("bitwise =", "first ≠ at"), EQUAL, _equal_and_first, rank=4),
)


def fitting(widths: Sequence[int], room: int, gap: int) -> list[int]:
    """Places in COLUMNS that fit into `room` characters, each with a gap before it."""
    shown = list(range(len(COLUMNS)))
    while sum(widths[place] + gap for place in shown) > room:
        place = max(shown, key=lambda candidate: COLUMNS[candidate].rank)
        if COLUMNS[place].rank == 0:
            break
        shown.remove(place)
    return shown
