"""Shard: what a comparison needs of the tokens of one data-parallel rank, a few numbers a sequence.

In: the arrays that compare() takes. Out: Shard; merging the shards of a step gives the shard of
the step, whose numbers carry the names of the comparison.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from driftscope_probes.mismatch.counts import (
    DifferingTokens,
    Hygiene,
    TokenCounts,
    bitwise,
    confident_disagreement,
    differing_tokens,
    hygiene,
    token_counts,
)
from driftscope_probes.mismatch.divergences import (
    QUANTILES,
    binary_kl,
    chi_square,
    js_divergence,
    kl,
    reverse_kl,
)
from driftscope_probes.mismatch.fused.layouts import TokenPass
from driftscope_probes.mismatch.fused.token_pass import token_pass
from driftscope_probes.mismatch.histogram import Histogram, abs_diff_histogram, quantile_bracket
from driftscope_probes.mismatch.number import Number, Undefined, mean
from driftscope_probes.mismatch.probability import (
    ProbabilityMoments,
    pearson_of_moments,
    probability_moments,
)
from driftscope_probes.mismatch.sequences import (
    length_slope,
    perplexity,
    sequence_log_ratio,
    sequence_ratio,
)
from driftscope_probes.mismatch.sums import (
    DivergenceSums,
    SequenceSums,
    TokenExtremes,
    TokenSpread,
    divergence_sums,
    sequence_sums,
    token_extremes,
    token_spread,
    unbiased_std_of,
)
from driftscope_probes.mismatch.weights import (
    effective_sample_size,
    kish_ratio,
    multiplicative_error,
    ratio,
)
from driftscope_probes.tokens import Tokens, checked_tokens

PerSequence = TypeVar("PerSequence", DivergenceSums, TokenSpread, ProbabilityMoments)


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """Whole sequences of a batch. Everything is kept per sequence or is a count or an extreme.

    Merging concatenates, adds, or takes the larger: no sum over sequences is ever rounded twice,
    so the numbers of merged shards are those of the whole bit for bit, whatever the split.
    """

    hygiene: Hygiene
    sums: SequenceSums
    divergences: DivergenceSums
    spread: TokenSpread
    counts: TokenCounts
    extremes: TokenExtremes
    differing: DifferingTokens
    abs_diff: Histogram
    probabilities: ProbabilityMoments

    def to_dict(self) -> dict[str, Any]:
        """Flat: the numbers, `undefined` and `quantile_brackets`.

        Absent, since they need every token at once: the ULP distances, intervals, and quantiles
        other than as brackets.
        """
        numbers = self._numbers()
        brackets = {
            f"abs_diff_{_percent(share)}": quantile_bracket(
                self.abs_diff, share, self.extremes.abs_diff_max
            )
            for share in QUANTILES
        }
        return {
            **{name: None if isinstance(n, Undefined) else n for name, n in numbers.items()},
            "quantile_brackets": {
                name: list(b) for name, b in brackets.items() if not isinstance(b, Undefined)
            },
            "undefined": {
                name: n.reason for name, n in numbers.items() if isinstance(n, Undefined)
            },
        }

    def _numbers(self) -> dict[str, float | int | Undefined]:
        sums, divergences, extremes = self.sums, self.divergences, self.extremes
        ratio_std = unbiased_std_of(sums, divergences.ratio, self.spread.ratio)
        parts = (
            self.hygiene,
            kl(sums),
            reverse_kl(sums, divergences),
            js_divergence(sums, divergences),
            binary_kl(sums, divergences, extremes),
            chi_square(sums, divergences, self.counts),
            ratio(sums, divergences, self.counts, extremes, ratio_std),
            multiplicative_error(sums, divergences),
            sequence_log_ratio(sums),
            sequence_ratio(sums),
            perplexity(sums, divergences),
            confident_disagreement(self.counts),
            bitwise(self.differing),
            length_slope(sums),
            effective_sample_size(sums, divergences, self.ess_ratio_token()),
        )
        of_parts = {
            number.name: getattr(part, number.name)
            for part in parts
            for number in dataclasses.fields(part)
        }
        return of_parts | self._differences()

    def _differences(self) -> dict[str, Number]:
        sums, extremes = self.sums, self.extremes
        gap = sums.prob_abs_diff
        return {
            "abs_diff_mean": sums.token_mean(sums.abs_diff),
            "abs_diff_seq_mean": mean(sums.abs_diff / sums.length),
            "abs_diff_max": extremes.number(extremes.abs_diff_max),
            "diff_mean": sums.token_mean(sums.diff),
            "diff_std": unbiased_std_of(sums, sums.diff, self.spread.diff),
            "prob_abs_diff_mean": sums.token_mean(gap),
            "prob_abs_diff_seq_mean": mean(gap / sums.length),
            "prob_abs_diff_max": extremes.number(extremes.prob_abs_diff_max),
            "prob_abs_diff_std": unbiased_std_of(sums, gap, self.spread.prob_abs_diff),
            "prob_diff_mean": sums.token_mean(self.divergences.prob_diff),
            "prob_pearson": pearson_of_moments(self.probabilities),
        }

    def ess_ratio_token(self) -> Number:
        """From Σρ and Σρ², which overflow at |Δ| of some 350 nats."""
        return kish_ratio(
            float(self.divergences.ratio.sum()),
            float(self.spread.ratio_square.sum()),
            self.counts.tokens,
        )


def shard_of(
    rollout_logprobs: ArrayLike,
    trainer_logprobs: ArrayLike,
    cu_seqlens: ArrayLike,
    mask: ArrayLike | None = None,
) -> Shard:
    """Arguments and errors as for compare(); a sequence must not be split between shards."""
    tokens = checked_tokens(rollout_logprobs, trainer_logprobs, cu_seqlens, mask)
    return shard_of_pass(tokens, token_pass(tokens))


def shard_of_pass(tokens: Tokens, found: TokenPass) -> Shard:
    return Shard(
        hygiene=hygiene(tokens, found),
        sums=sequence_sums(found),
        divergences=divergence_sums(found),
        spread=token_spread(found),
        counts=token_counts(found),
        extremes=token_extremes(found),
        differing=differing_tokens(found),
        abs_diff=abs_diff_histogram(found),
        probabilities=probability_moments(found),
    )


def merge_shards(first: Shard, second: Shard) -> Shard:
    """The shard of the sequences of `first`, then those of `second`."""
    return Shard(
        hygiene=first.hygiene.merged(second.hygiene),
        sums=_merged_sums(first.sums, second.sums),
        divergences=_joined(first.divergences, second.divergences),
        spread=_joined(first.spread, second.spread),
        counts=first.counts.merged(second.counts),
        extremes=first.extremes.merged(second.extremes),
        differing=first.differing.merged(second.differing),
        abs_diff=first.abs_diff.merged(second.abs_diff),
        probabilities=_joined(first.probabilities, second.probabilities),
    )


def _merged_sums(first: SequenceSums, second: SequenceSums) -> SequenceSums:
    joined: dict[str, Any] = {
        part.name: np.concatenate([getattr(first, part.name), getattr(second, part.name)])
        for part in dataclasses.fields(SequenceSums)
        if part.name not in ("given_sequences", "sequence_index")
    }
    return SequenceSums(
        given_sequences=first.given_sequences + second.given_sequences,
        sequence_index=np.concatenate(
            [first.sequence_index, second.sequence_index + first.given_sequences]
        ),
        **joined,
    )


def _joined(first: PerSequence, second: PerSequence) -> PerSequence:
    return type(first)(
        **{
            part.name: np.concatenate([getattr(first, part.name), getattr(second, part.name)])
            for part in dataclasses.fields(first)
        }
    )


def _percent(share: float) -> str:
    """0.999 → p99p9, as in the names of the comparison."""
    return f"p{100 * share:g}".replace(".", "p")
