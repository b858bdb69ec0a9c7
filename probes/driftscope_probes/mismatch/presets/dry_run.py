"""Dry run: what every known rejection and truncation preset would do to one batch.

In: PairedLogprobs, with advantages where they are known. Out: shares by preset.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from driftscope_probes.mismatch.aliases.registry import unmasked_values
from driftscope_probes.mismatch.aliases.unmasked_tokens import unmasked_tokens
from driftscope_probes.mismatch.paired_logprobs import PairedLogprobs
from driftscope_probes.mismatch.presets.effect import LeftOut, PresetEffect, effect
from driftscope_probes.mismatch.presets.framework_presets import (
    ADVANTAGE_PRESETS,
    advantage_fates,
    framework_fates,
)
from driftscope_probes.mismatch.presets.verl_presets import verl_fates

NO_ADVANTAGES = LeftOut("needs the advantages, which were not given")


def preset_effects(
    pair: PairedLogprobs, *, advantages: ArrayLike | None = None
) -> dict[str, PresetEffect | LeftOut]:
    """By `framework.preset`. advantages is [tokens]; raises TraceError if its shape does not fit.

    NaN follows each framework: a mask that keeps what lies within bounds drops it, a mask that
    drops what lies outside keeps it.
    """
    with np.errstate(all="ignore"):
        tokens = unmasked_tokens(pair)
        fates = {f"verl.{name}": value for name, value in verl_fates(tokens).items()}
        fates |= framework_fates(tokens)
        known = unmasked_values("advantages", advantages, pair)
        if known is not None:
            fates |= advantage_fates(tokens, known)
        effects = {name: effect(tokens, value) for name, value in fates.items()}
    if known is None:
        effects |= dict.fromkeys(ADVANTAGE_PRESETS, NO_ADVANTAGES)
    return effects


def presets(
    pair: PairedLogprobs, *, advantages: ArrayLike | None = None
) -> dict[str, dict[str, float | str]]:
    """preset_effects as plain dictionaries, ready for JSON."""
    effects = preset_effects(pair, advantages=advantages)
    return {name: value.to_dict() for name, value in effects.items()}
