"""From one step's tokens to all that driftscope says about them.

In: PushedStep. Out: Analysis. What several parts need is computed once: the checked pair, the
compiled pass, and what the frameworks' formulas share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from driftscope_probes.mismatch.comparison import Comparison, compare_paired
from driftscope_probes.mismatch.frameworks import AliasValues
from driftscope_probes.mismatch.frameworks.blocks import in_two_threads
from driftscope_probes.mismatch.frameworks.preset_fates import LeftOut, PresetEffect
from driftscope_probes.mismatch.frameworks.registry import (
    aliases_of,
    preset_effects_of,
    unmasked_values,
)
from driftscope_probes.mismatch.frameworks.unmasked_tokens import unmasked_tokens
from driftscope_probes.mismatch.histogram import Histogram
from driftscope_probes.mismatch.resampling import DEFAULT_RESAMPLES
from driftscope_probes.mismatch.thresholds import CrossedThreshold, crossed_thresholds
from driftscope_probes.mismatch.tokens import PairedLogprobs, SideArrays, paired_logprobs
from driftscope_probes.push.pushed_step import PushedStep

#: Nine digits fit the int32 in which `behavior_version` is sent; a hash or a time does not count.
MAX_VERSION_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Analysis:
    comparison: Comparison
    abs_diff_histogram: Histogram
    aliases: dict[str, AliasValues]  # by framework
    presets: dict[str, PresetEffect | LeftOut]  # by `framework.preset`

    def to_dict(self) -> dict[str, Any]:
        """What `analyze --json` prints."""
        return {
            "comparison": self.comparison.to_dict(),
            "diagnosis": None,
            "aliases": self.aliases,
            "presets": {name: value.to_dict() for name, value in self.presets.items()},
        }

    def crossed_thresholds(
        self, rollout_dtype: str | None, trainer_dtype: str | None
    ) -> tuple[CrossedThreshold, ...]:
        return crossed_thresholds(
            self.comparison.to_dict(), rollout_dtype=rollout_dtype, trainer_dtype=trainer_dtype
        )


def analyze_step(step: PushedStep, *, resamples: int = DEFAULT_RESAMPLES) -> Analysis:
    """Raises RequestError for a bad count of resamples, TraceError for arrays that do not fit."""
    # A step always has a mask; where it leaves nothing out, the compiled pass need not look at it.
    mask = None if step.mask.all() else step.mask
    pair = paired_logprobs(step.rollout_logprobs, step.trainer_logprobs, step.cu_seqlens, mask)
    (comparison, histogram), (aliases, presets) = in_two_threads(
        lambda: compare_paired(pair, resamples=resamples, side=_side_arrays(step)),
        lambda: _of_frameworks(step, pair),
        step.mask.size,
    )
    return Analysis(comparison, histogram, aliases, presets)


def _of_frameworks(
    step: PushedStep, pair: PairedLogprobs
) -> tuple[dict[str, AliasValues], dict[str, PresetEffect | LeftOut]]:
    tokens = unmasked_tokens(pair)
    advantages = unmasked_values("advantages", step.advantages, pair)
    entropy = unmasked_values("entropy", step.entropy, pair)
    return aliases_of(tokens, advantages, entropy), preset_effects_of(tokens, advantages)


def _side_arrays(step: PushedStep) -> SideArrays:
    """Lags need the trainer's own step beside the rollouts': metadata `weights_version`."""
    version = step.metadata.get("weights_version", "")
    countable = version.isdecimal() and len(version) <= MAX_VERSION_DIGITS
    known = step.behavior_version is not None and countable
    return SideArrays(
        entropy=step.entropy,
        position_ids=step.position_ids,
        turn_ids=step.turn_ids,
        behavior_version=step.behavior_version if known else None,
        train_version=int(version) if known else None,
    )
