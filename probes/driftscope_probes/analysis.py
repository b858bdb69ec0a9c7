"""From one step's tokens to all that driftscope says about them.

In: PushedStep. Out: Analysis. What several parts need is computed once: the compiled pass, and what
the frameworks' formulas share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from driftscope_probes.diagnosis.cause import Diagnosis
from driftscope_probes.diagnosis.diagnose import diagnose
from driftscope_probes.diagnosis.floor import Floor
from driftscope_probes.diagnosis.observed import compared_tokens, observed_step
from driftscope_probes.diagnosis.routing_integrity import Routing, routing_of
from driftscope_probes.diagnosis.settings import settings_of
from driftscope_probes.lint.base import Finding
from driftscope_probes.lint.readers.step_metadata import settings_of_metadata
from driftscope_probes.lint.stated import stated_findings
from driftscope_probes.mismatch.comparison import Comparison, compare_tokens
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
from driftscope_probes.mismatch.oddities import Oddities, oddities
from driftscope_probes.mismatch.resampling import DEFAULT_RESAMPLES
from driftscope_probes.mismatch.thresholds import (
    CrossedThreshold,
    crossed_thresholds,
    unknown_dtypes_note,
)
from driftscope_probes.push.pushed_step import PushedStep
from driftscope_probes.sampling_notes import NOT_OF_THE_DRAW, sampling_notes
from driftscope_probes.tokens import Tokens
from driftscope_probes.unused import UnusedInput, unused_inputs


@dataclass(frozen=True, slots=True)
class Analysis:
    comparison: Comparison
    abs_diff_histogram: Histogram
    aliases: dict[str, AliasValues]  # by framework
    presets: dict[str, PresetEffect | LeftOut]  # by `framework.preset`
    diagnosis: Diagnosis
    hygiene: Oddities
    notes: tuple[str, ...] = ()  # what settings of the sampling do to the comparison
    unused: tuple[UnusedInput, ...] = ()
    routing: Routing | None = None  # None: the step has no routes
    lint: tuple[Finding, ...] = ()  # what the settings that the metadata state are known to do

    def to_dict(self) -> dict[str, Any]:
        """What `analyze --json` prints."""
        return {
            "comparison": self.comparison.to_dict(),
            "diagnosis": self.diagnosis.to_dict(),
            "hygiene": self.hygiene.to_dict(),
            "notes": list(self.notes),
            "lint": [finding.to_dict() for finding in self.lint],
            "unused": [one.to_dict() for one in self.unused],
            "routing": None if self.routing is None else self.routing.to_dict(),
            "aliases": self.aliases,
            "presets": {name: value.to_dict() for name, value in self.presets.items()},
        }

    def crossed_thresholds(
        self, rollout_dtype: str | None, trainer_dtype: str | None
    ) -> tuple[CrossedThreshold, ...]:
        return crossed_thresholds(
            self.comparison.to_dict(), rollout_dtype=rollout_dtype, trainer_dtype=trainer_dtype
        )


def analyze_step(
    step: PushedStep, *, resamples: int = DEFAULT_RESAMPLES, floor: Floor | None = None
) -> Analysis:
    """Raises RequestError for a bad count of resamples, TraceError for arrays that do not fit.

    `floor`: calibrated for this model and these dtypes; None: the prior of the dtypes.
    """
    tokens = compared_tokens(step)
    (comparison, histogram), (aliases, presets) = in_two_threads(
        lambda: compare_tokens(tokens, resamples=resamples),
        lambda: _of_frameworks(step, tokens),
        step.mask.size,
    )
    routing = routing_of(tokens, step.routed_experts, step.trainer_routed_experts)
    diagnosis = diagnose(observed_step(step, tokens, routing), floor)
    return Analysis(
        comparison,
        histogram,
        aliases,
        presets,
        diagnosis,
        oddities(tokens, comparison, step.rollout_token_ids),
        _notes(step, diagnosis),
        unused_inputs(step),
        routing,
        stated_findings(settings_of_metadata(step.metadata)),
    )


def _notes(step: PushedStep, diagnosis: Diagnosis) -> tuple[str, ...]:
    """Of what the metadata state; what nobody stated is not guessed."""
    unknown = unknown_dtypes_note(step.metadata)
    dtypes = () if unknown is None else (unknown,)
    settings = settings_of(step.metadata)
    if settings.processed is None:
        return dtypes
    found = sampling_notes(
        temperature=1.0 if settings.temperature is None else settings.temperature,
        truncated=settings.truncated,
        processed=settings.processed,
    )
    # Only where both sides agree are both known to be those of the unscaled model.
    agree = diagnosis.verdict in ("bitwise_equal", "at_floor")
    return (*dtypes, *(note for note in found if note != NOT_OF_THE_DRAW or agree))


def _of_frameworks(
    step: PushedStep, tokens: Tokens
) -> tuple[dict[str, AliasValues], dict[str, PresetEffect | LeftOut]]:
    unmasked = unmasked_tokens(tokens)
    advantages = unmasked_values("advantages", step.advantages, tokens)
    entropy = unmasked_values("entropy", tokens.extras.entropy, tokens)
    return aliases_of(unmasked, advantages, entropy), preset_effects_of(unmasked, advantages)
