"""Comparison: every number that two sides' log-probabilities of the same tokens give.

In: two arrays, sequence limits and a mask. Out: Comparison, one part per concept. compare() shows
the flow of the whole package.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from driftscope_probes.mismatch.counts import (
    Bitwise,
    ConfidentDisagreement,
    Hygiene,
    PositionOnset,
    bitwise,
    confident_disagreement,
    position_onset,
)
from driftscope_probes.mismatch.divergences import (
    KL,
    ULP,
    AbsoluteDifference,
    BinaryKL,
    ChiSquare,
    JSDivergence,
    ReverseKL,
    absolute_difference,
    binary_kl,
    chi_square,
    js_divergence,
    kl,
    median_ranks,
    reverse_kl,
    ulp,
    wanted_ranks,
)
from driftscope_probes.mismatch.fused.order_statistics import OrderStatistics, order_statistics
from driftscope_probes.mismatch.fused.token_pass import token_pass
from driftscope_probes.mismatch.histogram import Histogram
from driftscope_probes.mismatch.number import Number, Undefined
from driftscope_probes.mismatch.probability import (
    LEAST_SQUARES,
    ProbabilityDifference,
    hold_their_digits,
    pearson,
    pearson_of_moments,
    probability_difference,
)
from driftscope_probes.mismatch.resampling import (
    DEFAULT_RESAMPLES,
    DEFAULT_SEED,
    LEVEL,
    Interval,
    SequenceMean,
    check_resamples,
    held_draws,
    mean_intervals,
    sequence_means,
)
from driftscope_probes.mismatch.sequences import (
    SLOPE_NAME,
    LengthSlope,
    Perplexity,
    SequenceLogRatio,
    SequenceRatio,
    length_slope,
    length_slope_interval,
    perplexity,
    sequence_log_ratio,
    sequence_ratio,
)
from driftscope_probes.mismatch.shard import Shard, merge_shards, shard_of_pass
from driftscope_probes.mismatch.staleness import (
    MismatchEntropy,
    Staleness,
    lag_buckets_of,
    mismatch_entropy,
    staleness,
)
from driftscope_probes.mismatch.stored_bits import StoredBits, stored_bits
from driftscope_probes.mismatch.sums import SequenceSums, unbiased_std_of
from driftscope_probes.mismatch.token_differences import token_differences
from driftscope_probes.mismatch.weights import (
    EffectiveSampleSize,
    MultiplicativeError,
    Ratio,
    effective_sample_size,
    ess_ratio,
    multiplicative_error,
    ratio,
)
from driftscope_probes.tokens import Extras, Tokens, checked_tokens


@dataclass(frozen=True, slots=True)
class Comparison:
    """Parts by concept; a number's name is the same here and in JSON, and occurs in one part only.

    A number that has no value is Undefined(reason) here, null in JSON.
    """

    hygiene: Hygiene
    absolute_difference: AbsoluteDifference
    kl: KL
    reverse_kl: ReverseKL
    js_divergence: JSDivergence
    binary_kl: BinaryKL
    chi_square: ChiSquare
    probability: ProbabilityDifference
    ratio: Ratio
    multiplicative_error: MultiplicativeError
    sequence: SequenceLogRatio
    sequence_ratio: SequenceRatio
    perplexity: Perplexity
    confident_disagreement: ConfidentDisagreement
    effective_sample_size: EffectiveSampleSize
    bitwise: Bitwise
    onset: PositionOnset | None  # where position_ids were given; else its names are absent
    ulp: ULP
    stored: StoredBits | None  # of merged shards its names are absent
    length_slope: LengthSlope
    entropy: MismatchEntropy | None  # where entropies were given; else its names are absent
    staleness: Staleness | None  # where versions were given; else its names are absent
    intervals: Mapping[str, Interval | Undefined]  # empty if switched off
    resamples: int
    seed: int
    sums: SequenceSums = field(repr=False, compare=False)

    def value(self, name: str) -> float | int | Undefined:
        """The number of that JSON name; KeyError if there is none."""
        return self._numbers()[name]

    def sequence_mean(self, name: str) -> SequenceMean:
        """A mean in the form that ratio_interval() takes; KeyError if it has no interval."""
        return sequence_means(self.sums)[name]

    def to_dict(self) -> dict[str, Any]:
        """Flat JSON object: one key per number, plus `intervals` and `undefined`."""
        numbers = self._numbers()
        undefined = {name: n.reason for name, n in numbers.items() if isinstance(n, Undefined)}
        undefined |= {
            f"intervals.{name}": interval.reason
            for name, interval in self.intervals.items()
            if isinstance(interval, Undefined)
        }
        return {
            **{name: None if isinstance(n, Undefined) else n for name, n in numbers.items()},
            "intervals": {
                name: [interval.low, interval.high]
                for name, interval in self.intervals.items()
                if isinstance(interval, Interval)
            },
            "interval_level": LEVEL,
            "interval_resamples": self.resamples,
            "interval_seed": self.seed,
            "undefined": undefined,
        }

    def _numbers(self) -> dict[str, float | int | Undefined]:
        parts = (
            self.hygiene,
            self.absolute_difference,
            self.kl,
            self.reverse_kl,
            self.js_divergence,
            self.binary_kl,
            self.chi_square,
            self.probability,
            self.ratio,
            self.multiplicative_error,
            self.sequence,
            self.sequence_ratio,
            self.perplexity,
            self.confident_disagreement,
            self.effective_sample_size,
            self.bitwise,
            self.onset,
            self.ulp,
            self.stored,
            self.length_slope,
            self.entropy,
            self.staleness,
        )
        return {
            number.name: getattr(part, number.name)
            for part in parts
            if part is not None
            for number in dataclasses.fields(part)
        }


def compare(
    rollout_logprobs: ArrayLike,
    trainer_logprobs: ArrayLike,
    cu_seqlens: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = DEFAULT_SEED,
    extras: Extras | None = None,
) -> Comparison:
    """Compare what two sides say about the same tokens; Δ = logp_trainer − logp_rollout.

    rollout_logprobs, trainer_logprobs: [tokens] float32 or float64, nats, of the sampled tokens.
    cu_seqlens: [sequences + 1] integers, cumulative lengths. mask: [tokens] bool or 0/1; what is
    masked has no effect. resamples and seed belong to the intervals; 0 resamples leave them out.
    extras: what else is known about the tokens; each array that is there adds numbers.
    Raises TraceError for arrays that do not fit together, RequestError for bad settings.
    """
    tokens = checked_tokens(rollout_logprobs, trainer_logprobs, cu_seqlens, mask, extras)
    return compare_tokens(tokens, resamples=resamples, seed=seed)[0]


def compare_tokens(
    tokens: Tokens, *, resamples: int = DEFAULT_RESAMPLES, seed: int = DEFAULT_SEED
) -> tuple[Comparison, Histogram]:
    """compare() of arrays that have been checked, and the histogram of |Δ| that it makes."""
    check_resamples(resamples, least=0)
    found = token_pass(tokens)
    shard = shard_of_pass(tokens, found)
    count = shard.counts.tokens
    ranked = order_statistics(tokens, found, wanted_ranks(count), median_ranks(count))
    lags = lag_buckets_of(tokens, shard.sums)
    of_tokens = _OfTokens(
        correlation=_correlation(tokens, shard),
        ess_ratio_token=_ess_ratio_token(tokens, shard),
        ranked=ranked,
        onset=position_onset(tokens, found),
        stored=stored_bits(tokens),
        entropy=_entropy(tokens, count, kl(shard.sums).kl_k3),
        staleness=None if lags is None else staleness(lags),
    )
    return _comparison(shard, of_tokens, resamples, seed), shard.abs_diff


def compare_shards(
    shards: Sequence[Shard], *, resamples: int = DEFAULT_RESAMPLES, seed: int = DEFAULT_SEED
) -> tuple[Comparison, Histogram]:
    """What compare_tokens() gives for the sequences of all shards in their order, bit for bit, but
    for what needs every token at once: that is Undefined, or its names are absent.

    Where Σp² or Σρ² leaves the range of float64 the correlation and the effective sample size are
    those of the sums, which say so. shards: at least one.
    """
    check_resamples(resamples, least=0)
    shard = reduce(merge_shards, shards)
    of_tokens = _OfTokens(
        correlation=pearson_of_moments(shard.probabilities),
        ess_ratio_token=shard.ess_ratio_token(),
    )
    return _comparison(shard, of_tokens, resamples, seed), shard.abs_diff


@dataclass(frozen=True, slots=True)
class _OfTokens:
    """What a shard alone does not tell; None where there is no more than shards."""

    correlation: Number
    ess_ratio_token: Number
    ranked: OrderStatistics | None = None
    onset: PositionOnset | None = None
    stored: StoredBits | None = None
    entropy: MismatchEntropy | None = None
    staleness: Staleness | None = None


def _comparison(shard: Shard, of_tokens: _OfTokens, resamples: int, seed: int) -> Comparison:
    sums, divergences, spread = shard.sums, shard.divergences, shard.spread
    counts, extremes, ranked = shard.counts, shard.extremes, of_tokens.ranked
    return Comparison(
        hygiene=shard.hygiene,
        absolute_difference=absolute_difference(
            sums, spread, extremes, None if ranked is None else ranked.abs_diff
        ),
        kl=kl(sums),
        reverse_kl=reverse_kl(sums, divergences),
        js_divergence=js_divergence(sums, divergences),
        binary_kl=binary_kl(sums, divergences, extremes),
        chi_square=chi_square(sums, divergences, counts),
        probability=probability_difference(
            sums, divergences, spread, extremes, of_tokens.correlation
        ),
        ratio=ratio(
            sums,
            divergences,
            counts,
            extremes,
            unbiased_std_of(sums, divergences.ratio, spread.ratio),
        ),
        multiplicative_error=multiplicative_error(sums, divergences),
        sequence=sequence_log_ratio(sums),
        sequence_ratio=sequence_ratio(sums),
        perplexity=perplexity(sums, divergences),
        confident_disagreement=confident_disagreement(counts),
        effective_sample_size=effective_sample_size(sums, divergences, of_tokens.ess_ratio_token),
        bitwise=bitwise(shard.differing),
        onset=of_tokens.onset,
        ulp=ulp(None if ranked is None else ranked.ulp_distance, extremes, counts.tokens),
        stored=of_tokens.stored,
        length_slope=length_slope(sums),
        entropy=of_tokens.entropy,
        staleness=of_tokens.staleness,
        intervals=_intervals(sums, resamples, seed) if resamples else {},
        resamples=resamples,
        seed=seed,
        sums=sums,
    )


def _entropy(tokens: Tokens, kept: int, kl_k3: Number) -> MismatchEntropy | None:
    if tokens.extras.entropy is None:
        return None
    entropy = tokens.extras.entropy.astype(np.float64, copy=False)
    if kept < entropy.size:
        entropy = token_differences(tokens).kept(entropy)
    return mismatch_entropy(entropy, kl_k3)


def _correlation(tokens: Tokens, shard: Shard) -> Number:
    """From the tokens themselves where squares of probabilities leave the range of float64."""
    if not shard.counts.tokens or hold_their_digits(shard.probabilities):
        return pearson_of_moments(shard.probabilities)
    differences = token_differences(tokens)
    return pearson(differences.rollout_prob, differences.trainer_prob)


def _ess_ratio_token(tokens: Tokens, shard: Shard) -> Number:
    """From the log-weights where the squares of the weights leave the range of float64."""
    squares = float(shard.spread.ratio_square.sum())
    if not shard.counts.tokens or LEAST_SQUARES <= squares < math.inf:
        return shard.ess_ratio_token()
    return ess_ratio(token_differences(tokens).diff)


def _intervals(sums: SequenceSums, resamples: int, seed: int) -> dict[str, Interval | Undefined]:
    draws = held_draws(sums.length.size, resamples=resamples, seed=seed)
    slope = length_slope_interval(sums, resamples=resamples, seed=seed, draws=draws)
    means = sequence_means(sums)
    return {
        **mean_intervals(means, resamples=resamples, seed=seed, draws=draws),
        SLOPE_NAME: slope,
    }
