"""The tokens that frameworks' own metrics are taken over, and the values those give."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.mismatch.counts import unmasked_lengths
from driftscope_probes.mismatch.frameworks.blocks import block_sums, of_each_block
from driftscope_probes.mismatch.number import (
    NO_TOKENS,
    OVERFLOW,
    BoolArray,
    FloatArray,
    IntArray,
    LogprobArray,
    Number,
    dot,
)
from driftscope_probes.mismatch.probability import ONE_SIDE_CONSTANT
from driftscope_probes.mismatch.terms import PROBABILITY_CLAMP, SAFETY_BOUND, k3_terms
from driftscope_probes.mismatch.tokens import PairedLogprobs

# None: the framework itself would log NaN or an infinity, or would refuse the batch.
AliasValues: TypeAlias = dict[str, float | None]


def alias_values(values: Mapping[str, float], prefix: str = "") -> AliasValues:
    return {
        prefix + name: float(value) if math.isfinite(value) else None
        for name, value in values.items()
    }


def mean(values: FloatArray | BoolArray) -> float:
    """NaN, not a warning, where there is nothing to average."""
    return float(values.mean()) if values.size else math.nan


def biggest(values: FloatArray) -> float:
    return float(values.max()) if values.size else math.nan


def smallest(values: FloatArray) -> float:
    return float(values.min()) if values.size else math.nan


def unbiased_std(values: FloatArray) -> float:
    """torch.std: divides by n − 1, NaN for a single value."""
    return float(values.std(ddof=1)) if values.size > 1 else math.nan


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

BLOCK = 1 << 15  # tokens, and what is left of a sequence


@dataclass(frozen=True, eq=False)
class UnmaskedTokens:
    """Nothing is left out here: what becomes of NaN and −∞ is part of a framework's definition."""

    given_rollout: LogprobArray  # [unmasked] nats, dtype as given
    given_trainer: LogprobArray  # [unmasked] nats, dtype as given
    length: IntArray  # [sequences given] unmasked tokens, 0 for an empty sequence
    width: int  # tokens of the longest given sequence: the row length of a padded batch

    @cached_property
    def rollout(self) -> FloatArray:
        return self.given_rollout.astype(np.float64, copy=False)

    @cached_property
    def trainer(self) -> FloatArray:
        return self.given_trainer.astype(np.float64, copy=False)

    @property
    def diff(self) -> FloatArray:
        """[unmasked] Δ = trainer − rollout."""
        return self.column("diff")

    @property
    def ratio(self) -> FloatArray:
        """[unmasked] ρ = exp(Δ)."""
        return self.column("ratio")

    @property
    def k3(self) -> FloatArray:
        """[unmasked] ρ − 1 − Δ."""
        return self.column("k3")

    @property
    def rollout_prob(self) -> FloatArray:
        return self.column("rollout_prob")

    @property
    def trainer_prob(self) -> FloatArray:
        return self.column("trainer_prob")

    def column(self, name: Column) -> FloatArray:
        column: FloatArray = self._read.columns[COLUMNS.index(name)]
        return column

    def columns(self, count: int) -> FloatArray:
        """[count, unmasked] the first of the COLUMNS."""
        return self._read.columns[:count]

    def sequence_sum(self, values: Summed | FloatArray) -> FloatArray:
        """[sequences given] sums of one value per token; 0 for an empty sequence."""
        if isinstance(values, str):
            sums: FloatArray = self._read.sums[SUMMED.index(values)]
            return sums
        return self._reduced(np.add, values)

    def sequence_mean(self, values: Summed | FloatArray) -> FloatArray:
        """[sequences given] means of one value per token; 0 for an empty sequence."""
        means: FloatArray = self.sequence_sum(values) / np.maximum(self.length, 1)
        return means

    def sequence_max(self, values: FloatArray) -> FloatArray:
        """[sequences given] maxima of one value per token; 0 for an empty sequence."""
        return self._reduced(np.maximum, values)

    def any_in_sequence(self, flags: BoolArray) -> BoolArray:
        """[sequences given] whether any token of the sequence is flagged."""
        return self.count(flags) > 0

    def count(self, flags: BoolArray) -> IntArray:
        """[sequences given] how many tokens of the sequence are flagged."""
        before = np.concatenate([[0], np.cumsum(flags)])
        ends = np.cumsum(self.length)
        counts: IntArray = before[ends] - before[ends - self.length]
        return counts

    def above(self, name: Counted, bound: float) -> IntArray:
        """[sequences given] how many tokens have a value above one of the BOUNDS."""
        return self._read.counts[name][:, BOUNDS[name][0].tolist().index(bound)]

    def below(self, name: Counted, bound: float) -> IntArray:
        above, below = BOUNDS[name]
        return self._read.counts[name][:, above.size + below.tolist().index(bound)]

    def undefined(self, name: Counted) -> IntArray:
        return self._read.counts[name][:, -1]

    def outside(self, name: Counted, bounds: tuple[float, float]) -> IntArray:
        """[sequences given] how many lie below the lower or above the upper bound; NaN does not."""
        return self.below(name, bounds[0]) + self.above(name, bounds[1])

    def not_within(self, name: Counted, bounds: tuple[float, float]) -> IntArray:
        """Unlike outside(), counts NaN: a mask that keeps what lies within drops what cannot."""
        return self.outside(name, bounds) + self.undefined(name)

    def fraction(self, counts: IntArray) -> float:
        """Of all tokens, from counts by sequence."""
        return float(counts.sum()) / self.size if self.size else math.nan

    @property
    def size(self) -> int:
        return self.given_rollout.size

    def total(self, values: Totalled | FloatArray) -> float:
        if isinstance(values, str):
            return float(self._totals[TOTALLED.index(values)])
        return float(values.sum())

    def mean(self, values: Totalled | FloatArray) -> float:
        return self.total(values) / self.size if self.size else math.nan

    def largest(self, values: Extreme | FloatArray) -> float:
        if not self.size:
            return math.nan
        if isinstance(values, str):
            return float(self._read.extremes[0, EXTREMES.index(values)])
        return float(values.max())

    def smallest(self, values: Extreme | FloatArray) -> float:
        if not self.size:
            return math.nan
        if isinstance(values, str):
            return float(self._read.extremes[1, EXTREMES.index(values)])
        return float(values.min())

    def unbiased_std(self, name: Squared) -> float:
        """torch.std: divides by n − 1, NaN for a single value."""
        return math.sqrt(self.squares(name) / (self.size - 1)) if self.size > 1 else math.nan

    def squares(self, name: Squared) -> float:
        """Σ (x − mean)²; of the ratio about its mean in a padded batch, where padding is 0."""
        return float(self._squares[get_args(Squared).index(name)])

    def correlation(self) -> Number:
        """pearson() of both probabilities, to the last bit while that takes one dot."""
        if not self.size:
            return NO_TOKENS
        sides: tuple[Extreme, Extreme] = ("rollout_prob", "trainer_prob")
        if not all(math.isfinite(self.largest(side)) for side in sides):
            return OVERFLOW
        if any(self.smallest(side) == self.largest(side) for side in sides):
            return ONE_SIDE_CONSTANT
        both, first, second = self._squares[-3:].tolist()
        correlation: float = both / math.sqrt(first * second)
        return max(-1.0, min(1.0, correlation))

    def without_nan(self, values: LogprobArray) -> UnmaskedTokens:
        """Itself, or only the tokens whose value is a number."""
        if not self.undefined("diff").any():
            return self
        kept = ~np.isnan(values)
        rollout, trainer = self.given_rollout[kept], self.given_trainer[kept]
        return UnmaskedTokens(rollout, trainer, self.count(kept), self.width)

    @cached_property
    def finite_diff(self) -> bool:
        return math.isfinite(self.largest("diff")) and math.isfinite(self.smallest("diff"))

    def bounded_ratio(self, bound: float) -> Literal["ratio"] | FloatArray:
        """exp of Δ clamped to ±bound nats, which mostly is the ratio itself; NaN stays NaN."""
        if self.smallest("ratio") >= np.exp(-bound) and self.largest("ratio") <= np.exp(bound):
            return "ratio"
        return _clamped(self.ratio, bound)

    def bounded_k3(self, bound: float) -> FloatArray:
        """[unmasked] k3 of Δ clamped to ±bound nats; computed anew only where that matters."""
        return bounded_k3(self.diff, self.k3, bound)

    def per_token(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """[unmasked] the value of each token's sequence, from one value per given sequence."""
        return np.repeat(values, self.length)

    def _reduced(self, reduce: np.ufunc, values: FloatArray) -> FloatArray:
        reduced = np.zeros(self.length.size)
        held = self.length > 0
        if held.any():
            reduced[held] = reduce.reduceat(values, (np.cumsum(self.length) - self.length)[held])
        return reduced

    @cached_property
    def _read(self) -> _Read:
        with np.errstate(all="ignore"):
            return _read(self)

    @cached_property
    def _totals(self) -> FloatArray:
        """[TOTALLED]"""
        scales = self._scales()

        def of_block(block: slice) -> FloatArray:
            columns = self._read.columns[:, block]
            rows = np.empty((len(TOTALLED) - HELD, columns.shape[1]))
            _write_totalled(columns, rows, scales)
            held = np.add.reduce(columns[:HELD], axis=1)
            return np.concatenate([held, np.add.reduce(rows, axis=1)])

        with np.errstate(all="ignore"):
            return block_sums(self.size, of_block)

    @cached_property
    def _squares(self) -> FloatArray:
        """[Squared], and the dots of both probabilities' distances from their means."""
        from driftscope_probes.mismatch.fused.sequences import write_squares  # loads numba

        padded = self.total("ratio") / (self.length.size * self.width)
        centres = np.array(
            [self.mean("abs_diff"), self.mean("k3"), padded, self.mean("prob_abs_diff")]
        )
        scales = self._scales()
        scales[:, 2] = self._totals[-2:] / self.size

        def of_block(block: slice) -> FloatArray:
            columns = self._read.columns[:, block]
            rows = np.empty((6, columns.shape[1]))
            write_squares(tuple(columns), tuple(rows), centres, scales)
            first, second = rows[4], rows[5]
            dots = dot(first, second), dot(first, first), dot(second, second)
            return np.concatenate([np.add.reduce(rows[:4], axis=1), dots])

        with np.errstate(all="ignore"):
            ends = self._read.extremes[:, -2:]
            scales[:, 3] = np.abs(ends / scales[:, 0] - scales[:, 1] - scales[:, 2]).max(axis=0)
            return block_sums(self.size, of_block)

    def _scales(self) -> FloatArray:
        """[sides, 4] of both probabilities, as pearson() centres them: the largest, the first of
        the scaled ones, the mean of the distances from that, and the farthest from that mean."""
        scales = np.empty((2, 4))
        with np.errstate(all="ignore"):
            scales[:, 0] = self._read.extremes[0, -2:]
            scales[:, 1] = self._read.columns[-2:, 0] / scales[:, 0] if self.size else 0.0
        return scales


@dataclass(frozen=True, slots=True)
class _Read:
    """What one read of the tokens finds."""

    columns: FloatArray  # [COLUMNS, unmasked]
    sums: FloatArray  # [SUMMED, sequences given]
    counts: Mapping[Counted, IntArray]  # [sequences given, above what, below what, and NaN]
    extremes: FloatArray  # [largest and smallest, EXTREMES]


def _read(tokens: UnmaskedTokens) -> _Read:
    from driftscope_probes.mismatch.fused.sequences import count_beyond  # loads numba

    held = np.flatnonzero(tokens.length)
    limits = np.concatenate([[0], np.cumsum(tokens.length[held])])
    columns, sums = np.empty((len(COLUMNS), tokens.size)), np.zeros((len(SUMMED), held.size))
    counts = {
        name: np.zeros((held.size, above.size + below.size + 1), np.int64)
        for name, (above, below) in BOUNDS.items()
    }

    def of_run(run: tuple[int, int]) -> FloatArray:
        """Into columns, sums and counts; the extremes are returned."""
        start, stop = limits[run[0]], limits[run[1]]
        block, within = columns[:, start:stop], limits[run[0] : run[1] + 1] - start
        rows = np.empty((len(SUMMED) - HELD, stop - start))
        given = tokens.given_rollout[start:stop], tokens.given_trainer[start:stop]
        _write_summed(*given, block, rows)
        sums[:HELD, slice(*run)] = np.add.reduceat(block[:HELD], within[:-1], axis=1)
        sums[HELD:, slice(*run)] = np.add.reduceat(rows, within[:-1], axis=1)
        by_name = dict(zip(SUMMED, (*block[:HELD], *rows), strict=True))
        for name, (above, below) in BOUNDS.items():
            count_beyond(by_name[name], within, above, below, counts[name][slice(*run)])
        parts = (block[:3], rows[:2], block[4:])
        reduces = (np.maximum.reduce, np.minimum.reduce)
        return np.stack([np.concatenate([r(part, axis=1) for part in parts]) for r in reduces])

    extremes = np.zeros((2, len(EXTREMES)))
    if tokens.size:
        of_runs = of_each_block(of_run, _runs(limits), tokens.size)
        extremes = np.stack([np.maximum.reduce(of_runs[:, 0]), np.minimum.reduce(of_runs[:, 1])])
    return _Read(
        columns,
        _spread(sums, held, tokens.length.size),
        {name: _spread(of_held.T, held, tokens.length.size).T for name, of_held in counts.items()},
        extremes,
    )


def _spread(of_held: NDArray[Scalar], held: IntArray, sequences: int) -> NDArray[Scalar]:
    """[rows, sequences given] with 0 for empty sequences."""
    of_given = np.zeros((len(of_held), sequences), of_held.dtype)
    of_given[:, held] = of_held
    return of_given


def _runs(limits: IntArray) -> list[tuple[int, int]]:
    """First and last + 1 of sequences that together hold about a BLOCK of tokens."""
    first = np.flatnonzero(np.diff(limits[1:] // BLOCK, prepend=-1))
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


def _write_totalled(columns: FloatArray, rows: FloatArray, scales: FloatArray) -> None:
    from driftscope_probes.mismatch.fused.sequences import write_mixture, write_totalled

    write_totalled(tuple(columns), tuple(rows), scales)
    reverse_k3, mixture = rows[2], rows[3]
    np.expm1(reverse_k3, out=reverse_k3)
    # ½·k3 of either side against the mixture: all exponentials cancel, log cosh(Δ/2) remains.
    np.sinh(mixture, out=mixture)
    np.square(mixture, out=mixture)
    mixture *= 2.0
    np.log1p(mixture, out=mixture)
    write_mixture(columns[0], reverse_k3, mixture)
    if rows[0].max(initial=0.0) > SAFETY_BOUND:
        # ρ − 1 of the clamped Δ: exp(2Δ) − 1 = (ρ − 1)(ρ + 1) then has no cancellation.
        diff = np.clip(columns[0], -SAFETY_BOUND, SAFETY_BOUND)
        excess = bounded_k3(columns[0], columns[2], SAFETY_BOUND) + diff
        np.multiply(excess, excess + 2.0, out=rows[5])


def _clamped(ratio: FloatArray, bound: float) -> FloatArray:
    return np.clip(ratio, float(np.exp(-bound)), float(np.exp(bound)))


def bounded_k3(diff: FloatArray, k3: FloatArray, bound: float) -> FloatArray:
    """k3 of Δ clamped to ±bound nats; computed anew only where that matters."""
    beyond = np.flatnonzero(np.abs(diff) > bound)
    if not beyond.size:
        return k3
    terms = k3.copy()
    terms[beyond] = k3_terms(np.clip(diff[beyond], -bound, bound))
    return terms


def gate_divergences(
    rollout_prob: FloatArray, trainer_prob: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """OpenRLHF's total variation and binary KL of each token."""
    p = np.clip(rollout_prob, PROBABILITY_CLAMP, 1.0 - PROBABILITY_CLAMP)
    q = np.clip(trainer_prob, PROBABILITY_CLAMP, 1.0 - PROBABILITY_CLAMP)
    return np.abs(p - q), p * np.log(p / q) + (1.0 - p) * np.log((1.0 - p) / (1.0 - q))


def unmasked_tokens(pair: PairedLogprobs) -> UnmaskedTokens:
    given = np.diff(pair.cu_seqlens)
    return UnmaskedTokens(
        pair.rollout if pair.mask is None else pair.rollout[pair.mask],
        pair.trainer if pair.mask is None else pair.trainer[pair.mask],
        unmasked_lengths(pair),
        int(given.max(initial=0)),
    )
