"""Comparison: every number that two sides' log-probabilities of the same tokens give.

In: two arrays, sequence limits and a mask. Out: Comparison, one part per concept; the flow of the
whole package stands in compare().
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import ArrayLike

from driftscope_probes.mismatch.absolute_difference import AbsoluteDifference, absolute_difference
from driftscope_probes.mismatch.bitwise import Bitwise, bitwise
from driftscope_probes.mismatch.effective_sample_size import (
    EffectiveSampleSize,
    effective_sample_size,
)
from driftscope_probes.mismatch.hygiene import Hygiene, hygiene
from driftscope_probes.mismatch.kl import KL, kl
from driftscope_probes.mismatch.multiplicative_error import (
    MultiplicativeError,
    multiplicative_error,
)
from driftscope_probes.mismatch.number import Undefined
from driftscope_probes.mismatch.paired_logprobs import paired_logprobs
from driftscope_probes.mismatch.probability import ProbabilityDifference, probability_difference
from driftscope_probes.mismatch.ratio import Ratio, ratio
from driftscope_probes.mismatch.resampling import (
    DEFAULT_RESAMPLES,
    DEFAULT_SEED,
    LEVEL,
    Interval,
    check_resamples,
    mean_intervals,
)
from driftscope_probes.mismatch.sequence import SequenceLogRatio, sequence_log_ratio
from driftscope_probes.mismatch.sequence_mean import SequenceMean, sequence_means
from driftscope_probes.mismatch.sequence_sums import SequenceSums, sequence_sums
from driftscope_probes.mismatch.token_differences import token_differences
from driftscope_probes.trace import Pair


@dataclass(frozen=True, slots=True)
class Comparison:
    """Parts by concept; a number's name is the same here and in JSON, and occurs in one part only.

    A number that has no value is Undefined(reason) here, null in JSON.
    """

    hygiene: Hygiene
    absolute_difference: AbsoluteDifference
    kl: KL
    probability: ProbabilityDifference
    ratio: Ratio
    multiplicative_error: MultiplicativeError
    sequence: SequenceLogRatio
    effective_sample_size: EffectiveSampleSize
    bitwise: Bitwise
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
        """Flat JSON object: one key per number, `intervals` and `undefined` beside them."""
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
            self.probability,
            self.ratio,
            self.multiplicative_error,
            self.sequence,
            self.effective_sample_size,
            self.bitwise,
        )
        return {
            number.name: getattr(part, number.name)
            for part in parts
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
) -> Comparison:
    """Compare what two sides say about the same tokens; Δ = logp_trainer − logp_rollout.

    rollout_logprobs, trainer_logprobs: [tokens] float32 or float64, nats, of the sampled tokens.
    cu_seqlens: [sequences + 1] integers, cumulative lengths. mask: [tokens] bool or 0/1; what is
    masked has no effect. resamples and seed belong to the intervals; 0 resamples leave them out.
    Raises TraceError for arrays that do not fit together, RequestError for bad settings.
    """
    check_resamples(resamples, least=0)
    pair = paired_logprobs(rollout_logprobs, trainer_logprobs, cu_seqlens, mask)
    tokens = token_differences(pair)
    sums = sequence_sums(tokens)
    means = sequence_means(sums)
    return Comparison(
        hygiene=hygiene(pair, tokens),
        absolute_difference=absolute_difference(tokens, sums),
        kl=kl(sums),
        probability=probability_difference(tokens, sums),
        ratio=ratio(tokens),
        multiplicative_error=multiplicative_error(tokens),
        sequence=sequence_log_ratio(sums),
        effective_sample_size=effective_sample_size(tokens, sums),
        bitwise=bitwise(pair),
        intervals=mean_intervals(means, resamples=resamples, seed=seed) if resamples else {},
        resamples=resamples,
        seed=seed,
        sums=sums,
    )


def compare_pair(
    pair: Pair, *, resamples: int = DEFAULT_RESAMPLES, seed: int = DEFAULT_SEED
) -> Comparison:
    """compare() on two traces, with the mask they share."""
    return compare(
        pair.rollout.logprobs,
        pair.trainer.logprobs,
        pair.rollout.cu_seqlens,
        pair.rollout.mask,
        resamples=resamples,
        seed=seed,
    )
