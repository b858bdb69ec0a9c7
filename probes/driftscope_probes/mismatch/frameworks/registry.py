"""Every framework at once: aliases() gives its metrics, presets() a dry run of its presets."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from driftscope_probes.errors import TraceError
from driftscope_probes.mismatch.frameworks.nemo_rl import nemo_rl
from driftscope_probes.mismatch.frameworks.openrlhf import openrlhf
from driftscope_probes.mismatch.frameworks.preset_fates import (
    ADVANTAGE_PRESETS,
    LeftOut,
    PresetEffect,
    advantage_fates,
    effect,
    framework_fates,
    verl_fates,
)
from driftscope_probes.mismatch.frameworks.prime_rl import prime_rl
from driftscope_probes.mismatch.frameworks.skyrl import skyrl
from driftscope_probes.mismatch.frameworks.slime import miles, slime
from driftscope_probes.mismatch.frameworks.small_frameworks import (
    areal,
    open_instruct,
    torchtitan,
    trl,
)
from driftscope_probes.mismatch.frameworks.unmasked_tokens import (
    AliasValues,
    UnmaskedTokens,
    unmasked_tokens,
)
from driftscope_probes.mismatch.frameworks.verl import verl
from driftscope_probes.mismatch.number import FloatArray
from driftscope_probes.tokens import Tokens

# What needs nothing but the two sides; prime-rl also reads advantages and entropies.
FRAMEWORKS: MappingProxyType[str, Callable[[UnmaskedTokens], AliasValues]] = MappingProxyType(
    {
        "verl": verl,
        "trl": trl,
        "nemo_rl": nemo_rl,
        "slime": slime,
        "miles": miles,
        "openrlhf": openrlhf,
        "skyrl": skyrl,
        "areal": areal,
        "open_instruct": open_instruct,
        "torchtitan": torchtitan,
    }
)


def aliases(
    pair: Tokens,
    *,
    advantages: ArrayLike | None = None,
    entropy: ArrayLike | None = None,
) -> dict[str, AliasValues]:
    """The same data under each framework's names and definitions, flaws included.

    advantages and entropy are [tokens], aligned with the log-probabilities. None stands where the
    framework would log NaN or infinity. Raises TraceError if a shape does not fit.
    """
    return aliases_of(
        unmasked_tokens(pair),
        unmasked_values("advantages", advantages, pair),
        unmasked_values("entropy", entropy, pair),
    )


def aliases_of(
    tokens: UnmaskedTokens, advantages: FloatArray | None, entropy: FloatArray | None
) -> dict[str, AliasValues]:
    """advantages and entropy: [unmasked]."""
    # Overflow and NaN are answers here: they become None.
    with np.errstate(all="ignore"):
        values = {name: of_framework(tokens) for name, of_framework in FRAMEWORKS.items()}
        return values | {"prime_rl": prime_rl(tokens, advantages, entropy)}


def unmasked_values(name: str, values: ArrayLike | None, pair: Tokens) -> FloatArray | None:
    """[unmasked] of a [tokens] array in float64, None of None."""
    if values is None:
        return None
    array = np.asarray(values, dtype=np.float64)
    if array.shape != pair.rollout.shape:
        raise TraceError(
            f"{name} has shape {array.shape}, the log-probabilities have {pair.rollout.shape}.",
            remedy=f"give {name} as one value per token, or leave it out.",
        )
    return array if pair.mask is None else array[pair.mask]


NO_ADVANTAGES = LeftOut("needs the advantages, which were not given")


def preset_effects(
    pair: Tokens, *, advantages: ArrayLike | None = None
) -> dict[str, PresetEffect | LeftOut]:
    """By `framework.preset`. advantages is [tokens]; raises TraceError if its shape does not fit.

    NaN follows each framework: a mask that keeps what lies within bounds drops it, a mask that
    drops what lies outside keeps it.
    """
    return preset_effects_of(unmasked_tokens(pair), unmasked_values("advantages", advantages, pair))


def preset_effects_of(
    tokens: UnmaskedTokens, advantages: FloatArray | None
) -> dict[str, PresetEffect | LeftOut]:
    """advantages: [unmasked]."""
    with np.errstate(all="ignore"):
        fates = {f"verl.{name}": value for name, value in verl_fates(tokens).items()}
        fates |= framework_fates(tokens)
        if advantages is not None:
            fates |= advantage_fates(tokens, advantages)
        effects = {name: effect(tokens, value) for name, value in fates.items()}
    if advantages is None:
        effects |= dict.fromkeys(ADVANTAGE_PRESETS, NO_ADVANTAGES)
    return effects


def presets(
    pair: Tokens, *, advantages: ArrayLike | None = None
) -> dict[str, dict[str, float | str]]:
    """preset_effects as plain dictionaries, ready for JSON."""
    effects = preset_effects(pair, advantages=advantages)
    return {name: value.to_dict() for name, value in effects.items()}
