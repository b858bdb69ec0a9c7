"""The tokens that frameworks' own metrics are taken over, and the values those give."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.mismatch.counts import unmasked_lengths
from driftscope_probes.mismatch.frameworks.blocks import block_sums
from driftscope_probes.mismatch.frameworks.token_read import (
    BOUNDS,
    TOTALLED,
    Counted,
    Extreme,
    Squared,
    Summed,
    TokenRead,
    Totalled,
    block_squares,
    block_totals,
    read_tokens,
)
from driftscope_probes.mismatch.number import (
    NO_TOKENS,
    OVERFLOW,
    BoolArray,
    FloatArray,
    IntArray,
    LogprobArray,
    Number,
)
from driftscope_probes.mismatch.probability import ONE_SIDE_CONSTANT
from driftscope_probes.tokens import Tokens

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


@dataclass(frozen=True, eq=False)
class UnmaskedTokens:
    """Nothing is left out here: what becomes of NaN and −∞ is part of a framework's definition."""

    rollout: LogprobArray  # [unmasked] nats, dtype as given
    trainer: LogprobArray  # [unmasked] nats, dtype as given
    length: IntArray  # [sequences given] unmasked tokens, 0 for an empty sequence
    width: int  # tokens of the longest given sequence: the row length of a padded batch

    @property
    def diff(self) -> FloatArray:
        """[unmasked] Δ = trainer − rollout."""
        return self._read.column("diff")

    @property
    def ratio(self) -> FloatArray:
        """[unmasked] ρ = exp(Δ)."""
        return self._read.column("ratio")

    @property
    def k3(self) -> FloatArray:
        """[unmasked] ρ − 1 − Δ."""
        return self._read.column("k3")

    @property
    def rollout_prob(self) -> FloatArray:
        return self._read.column("rollout_prob")

    @property
    def trainer_prob(self) -> FloatArray:
        return self._read.column("trainer_prob")

    def columns(self, count: int) -> FloatArray:
        """[count, unmasked] the first of the COLUMNS."""
        return self._read.columns[:count]

    def sequence_sum(self, values: Summed | FloatArray) -> FloatArray:
        """[sequences given] sums of one value per token; 0 for an empty sequence."""
        if isinstance(values, str):
            return self._read.summed(values)
        return self._reduced(np.add, values)

    def sequence_mean(self, values: Summed | FloatArray) -> FloatArray:
        """[sequences given] means of one value per token; 0 for an empty sequence."""
        means: FloatArray = self.sequence_sum(values) / np.maximum(self.length, 1)
        return means

    def sequence_max(self, values: FloatArray) -> FloatArray:
        """[sequences given] maxima of one value per token; 0 for an empty sequence."""
        return self._reduced(np.maximum, values)

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
        return self.rollout.size

    def total(self, values: Totalled | FloatArray) -> float:
        if isinstance(values, str):
            return float(self._totals[TOTALLED.index(values)])
        return float(values.sum())

    def mean(self, values: Totalled | FloatArray) -> float:
        return self.total(values) / self.size if self.size else math.nan

    def largest(self, values: Extreme | FloatArray) -> float:
        return self._read.extreme(0, values) if isinstance(values, str) else biggest(values)

    def smallest(self, values: Extreme | FloatArray) -> float:
        return self._read.extreme(1, values) if isinstance(values, str) else smallest(values)

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
        rollout, trainer = self.rollout[kept], self.trainer[kept]
        return UnmaskedTokens(rollout, trainer, self.count(kept), self.width)

    @cached_property
    def finite_diff(self) -> bool:
        return math.isfinite(self.largest("diff")) and math.isfinite(self.smallest("diff"))

    def bounded_ratio(self, bound: float) -> Literal["ratio"] | FloatArray:
        """exp of Δ clamped to ±bound nats, which mostly is the ratio itself; NaN stays NaN."""
        if self.smallest("ratio") >= np.exp(-bound) and self.largest("ratio") <= np.exp(bound):
            return "ratio"
        return np.clip(self.ratio, float(np.exp(-bound)), float(np.exp(bound)))

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
    def _read(self) -> TokenRead:
        with np.errstate(all="ignore"):
            return read_tokens(self.rollout, self.trainer, self.length)

    @cached_property
    def _totals(self) -> FloatArray:
        """[TOTALLED]"""
        columns, scales = self._read.columns, self._scales()
        with np.errstate(all="ignore"):
            return block_sums(self.size, lambda block: block_totals(columns[:, block], scales))

    @cached_property
    def _squares(self) -> FloatArray:
        """[Squared], and the dots of both probabilities' distances from their means."""
        padded = self.total("ratio") / (self.length.size * self.width)
        centres = np.array(
            [self.mean("abs_diff"), self.mean("k3"), padded, self.mean("prob_abs_diff")]
        )
        scales = self._scales()
        scales[:, 2] = self._totals[-2:] / self.size

        with np.errstate(all="ignore"):
            ends = self._read.extremes[:, -2:]
            scales[:, 3] = np.abs(ends / scales[:, 0] - scales[:, 1] - scales[:, 2]).max(axis=0)
            columns = self._read.columns
            return block_sums(
                self.size, lambda block: block_squares(columns[:, block], centres, scales)
            )

    def _scales(self) -> FloatArray:
        """[sides, 4] of both probabilities, as pearson() centres them: the largest, the first of
        the scaled ones, the mean of the distances from that, and the farthest from that mean."""
        scales = np.empty((2, 4))
        with np.errstate(all="ignore"):
            scales[:, 0] = self._read.extremes[0, -2:]
            scales[:, 1] = self._read.columns[-2:, 0] / scales[:, 0] if self.size else 0.0
        return scales


def unmasked_tokens(pair: Tokens) -> UnmaskedTokens:
    given = np.diff(pair.cu_seqlens)
    return UnmaskedTokens(
        pair.rollout if pair.mask is None else pair.rollout[pair.mask],
        pair.trainer if pair.mask is None else pair.trainer[pair.mask],
        unmasked_lengths(pair),
        int(given.max(initial=0)),
    )
