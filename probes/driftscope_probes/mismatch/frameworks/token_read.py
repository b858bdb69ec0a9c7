"""One read of the tokens, for all frameworks: values of each token, sums and counts by sequence.

In: unmasked tokens. Out: TokenRead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.mismatch.frameworks.blocks import LONGEST_BLOCK, of_each_block
from driftscope_probes.mismatch.number import FloatArray, IntArray, LogprobArray, dot
from driftscope_probes.mismatch.terms import SAFETY_BOUND, k3_terms

Scalar = TypeVar("Scalar", bound=np.generic)

# Values of every token. Those that are held as arrays, from which others are found.
Column = Literal["diff", "ratio", "k3", "mult_error", "rollout_prob", "trainer_prob"]
# Values of which the sum over each sequence is found, and those of which the sum over all tokens.
Summed = Literal[
    "diff", "ratio", "k3", "mult_error",
    "abs_diff", "prob_abs_diff", "rollout", "trainer", "abs_excess", "clamped_k3", "capped_ratio",
    "tv", "binary_kl",
]  # fmt: skip
Totalled = Literal[
    "diff", "ratio", "k3", "mult_error",
    "abs_diff", "prob_abs_diff", "reverse_k3", "mixture", "reverse_kl", "chi2", "rho_weight",
    "rollout_distance", "trainer_distance",
]  # fmt: skip
# Values whose largest and smallest are found; those that may be counted above and below bounds.
Extreme = Literal[
    "diff", "ratio", "k3", "abs_diff", "prob_abs_diff", "rollout_prob", "trainer_prob"
]
# Values of which the squared distances from their mean are summed.
Squared = Literal["abs_diff", "k3", "ratio", "prob_abs_diff"]
Counted = Literal["diff", "ratio", "abs_diff", "tv", "binary_kl"]

COLUMNS: tuple[Column, ...] = get_args(Column)
SUMMED: tuple[Summed, ...] = get_args(Summed)
TOTALLED: tuple[Totalled, ...] = get_args(Totalled)
EXTREMES: tuple[Extreme, ...] = get_args(Extreme)
HELD = 4  # columns that are summed and totalled too: the first ones everywhere

VETO = math.log(1e-4)  # slime
EXTREME_DIFF = math.log(2.0)  # AReaL
DIFFERENT_ABOVE = 1e-6  # torchtitan

BOUNDS: Mapping[Counted, tuple[FloatArray, FloatArray]] = {  # above and below
    "diff": (np.zeros(0), np.array([VETO])),
    "ratio": (np.array([2.0, 3.0, 5.0, 100.0]), np.array([0.5, 1e-4])),
    "abs_diff": (np.array([EXTREME_DIFF, DIFFERENT_ABOVE]), np.zeros(0)),
    "tv": (np.array([5.0]), np.array([0.5])),
    "binary_kl": (np.array([5.0]), np.array([0.5])),
}


@dataclass(frozen=True, slots=True)
class TokenRead:
    """What one read of the tokens finds."""

    columns: FloatArray  # [COLUMNS, unmasked]
    sums: FloatArray  # [SUMMED, sequences given]
    counts: Mapping[Counted, IntArray]  # [sequences given, above what, below what, and NaN]
    extremes: FloatArray  # [largest and smallest, EXTREMES], NaN without tokens

    def column(self, name: Column) -> FloatArray:
        column: FloatArray = self.columns[COLUMNS.index(name)]
        return column

    def summed(self, name: Summed) -> FloatArray:
        sums: FloatArray = self.sums[SUMMED.index(name)]
        return sums

    def extreme(self, side: int, name: Extreme) -> float:
        return float(self.extremes[side, EXTREMES.index(name)])


def read_tokens(rollout: LogprobArray, trainer: LogprobArray, length: IntArray) -> TokenRead:
    from driftscope_probes.mismatch.fused.sequences import count_beyond  # loads numba

    held = np.flatnonzero(length)
    limits = np.concatenate([[0], np.cumsum(length[held])])
    columns, sums = np.empty((len(COLUMNS), rollout.size)), np.zeros((len(SUMMED), held.size))
    counts = {
        name: np.zeros((held.size, above.size + below.size + 1), np.int64)
        for name, (above, below) in BOUNDS.items()
    }

    def of_run(run: tuple[int, int]) -> FloatArray:
        """Into columns, sums and counts; the extremes are returned."""
        start, stop = limits[run[0]], limits[run[1]]
        block, within = columns[:, start:stop], limits[run[0] : run[1] + 1] - start
        rows = np.empty((len(SUMMED) - HELD, stop - start))
        _write_summed(rollout[start:stop], trainer[start:stop], block, rows)
        sums[:HELD, slice(*run)] = np.add.reduceat(block[:HELD], within[:-1], axis=1)
        sums[HELD:, slice(*run)] = np.add.reduceat(rows, within[:-1], axis=1)
        by_name = dict(zip(SUMMED, (*block[:HELD], *rows), strict=True))
        for name, (above, below) in BOUNDS.items():
            count_beyond(by_name[name], within, above, below, counts[name][slice(*run)])
        parts = (block[:3], rows[:2], block[4:])
        reduces = (np.maximum.reduce, np.minimum.reduce)
        return np.stack([np.concatenate([r(part, axis=1) for part in parts]) for r in reduces])

    extremes = np.full((2, len(EXTREMES)), math.nan)
    if rollout.size:
        of_runs = of_each_block(of_run, _runs(limits), rollout.size)
        extremes = np.stack([np.maximum.reduce(of_runs[:, 0]), np.minimum.reduce(of_runs[:, 1])])
    return TokenRead(
        columns,
        _spread(sums, held, length.size),
        {name: _spread(of_held.T, held, length.size).T for name, of_held in counts.items()},
        extremes,
    )


def _spread(of_held: NDArray[Scalar], held: IntArray, sequences: int) -> NDArray[Scalar]:
    """[rows, sequences given] with 0 for empty sequences."""
    of_given = np.zeros((len(of_held), sequences), of_held.dtype)
    of_given[:, held] = of_held
    return of_given


def _runs(limits: IntArray) -> list[tuple[int, int]]:
    """First and last + 1 of sequences that together hold about two blocks of tokens."""
    first = np.flatnonzero(np.diff(limits[1:] // (2 * LONGEST_BLOCK), prepend=-1))
    return list(itertools.pairwise([*first.tolist(), limits.size - 1]))


def _write_summed(
    given_rollout: LogprobArray, given_trainer: LogprobArray, columns: FloatArray, rows: FloatArray
) -> None:
    from driftscope_probes.mismatch.fused.sequences import write_binary_kl, write_summed

    diff, ratio, _, mult_error, rollout_prob, trainer_prob = columns
    abs_diff, _, rollout, trainer, excess, _, _, _, kl = rows
    rollout[:], trainer[:] = given_rollout, given_trainer
    np.exp(rollout, out=rollout_prob)
    np.exp(trainer, out=trainer_prob)
    np.subtract(trainer, rollout, out=diff)
    np.abs(diff, out=abs_diff)
    np.exp(diff, out=ratio)
    np.exp(abs_diff, out=mult_error)
    np.expm1(diff, out=excess)
    rest = np.empty(diff.size)
    write_summed(tuple(columns), tuple(rows), rest)
    write_binary_kl(rollout_prob, np.log(kl, out=kl), np.log(rest, out=rest))


def block_totals(columns: FloatArray, scales: FloatArray) -> FloatArray:
    """[TOTALLED] of the COLUMNS of a block."""
    from driftscope_probes.mismatch.fused.sequences import write_mixture, write_totalled

    rows = np.empty((len(TOTALLED) - HELD, columns.shape[1]))
    write_totalled(tuple(columns), tuple(rows), scales)
    reverse_k3, mixture = rows[2], rows[3]
    np.expm1(reverse_k3, out=reverse_k3)
    # ½·k3 of either side against the mixture: all exponentials cancel, log cosh(Δ/2) remains.
    np.square(np.sinh(mixture, out=mixture), out=mixture)
    mixture *= 2.0
    np.log1p(mixture, out=mixture)
    write_mixture(columns[0], reverse_k3, mixture)
    if rows[0].max(initial=0.0) > SAFETY_BOUND:
        # ρ − 1 of the clamped Δ: exp(2Δ) − 1 = (ρ − 1)(ρ + 1) then has no cancellation.
        diff = np.clip(columns[0], -SAFETY_BOUND, SAFETY_BOUND)
        excess = bounded_k3(columns[0], columns[2], SAFETY_BOUND) + diff
        np.multiply(excess, excess + 2.0, out=rows[5])
    return np.concatenate([np.add.reduce(part, axis=1) for part in (columns[:HELD], rows)])


def block_squares(columns: FloatArray, centres: FloatArray, scales: FloatArray) -> FloatArray:
    """[Squared], and the dots of both probabilities' distances from their means."""
    from driftscope_probes.mismatch.fused.sequences import write_squares  # loads numba

    rows = np.empty((6, columns.shape[1]))
    write_squares(tuple(columns), tuple(rows), centres, scales)
    first, second = rows[4], rows[5]
    dots = dot(first, second), dot(first, first), dot(second, second)
    return np.concatenate([np.add.reduce(rows[:4], axis=1), dots])


def bounded_k3(diff: FloatArray, k3: FloatArray, bound: float) -> FloatArray:
    """k3 of Δ clamped to ±bound nats; computed anew only where that matters."""
    beyond = np.flatnonzero(np.abs(diff) > bound)
    if not beyond.size:
        return k3
    terms = k3.copy()
    terms[beyond] = k3_terms(np.clip(diff[beyond], -bound, bound))
    return terms
