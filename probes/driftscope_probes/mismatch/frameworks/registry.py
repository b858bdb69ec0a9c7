"""Every framework's names for one batch.

In: PairedLogprobs, with advantages and entropies where they are known. Out: AliasValues by
framework.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from driftscope_probes.errors import TraceError
from driftscope_probes.mismatch.aliases.alias_values import AliasValues
from driftscope_probes.mismatch.aliases.areal import areal
from driftscope_probes.mismatch.aliases.nemo_rl import nemo_rl
from driftscope_probes.mismatch.aliases.open_instruct import open_instruct
from driftscope_probes.mismatch.aliases.openrlhf import openrlhf
from driftscope_probes.mismatch.aliases.prime_rl import prime_rl
from driftscope_probes.mismatch.aliases.skyrl import skyrl
from driftscope_probes.mismatch.aliases.slime import miles, slime
from driftscope_probes.mismatch.aliases.torchtitan import torchtitan
from driftscope_probes.mismatch.aliases.trl import trl
from driftscope_probes.mismatch.aliases.unmasked_tokens import UnmaskedTokens, unmasked_tokens
from driftscope_probes.mismatch.aliases.verl import verl
from driftscope_probes.mismatch.arrays import FloatArray
from driftscope_probes.mismatch.paired_logprobs import PairedLogprobs

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
    pair: PairedLogprobs,
    *,
    advantages: ArrayLike | None = None,
    entropy: ArrayLike | None = None,
) -> dict[str, AliasValues]:
    """The same data under each framework's names and definitions, flaws included.

    advantages and entropy are [tokens], aligned with the log-probabilities. None stands where the
    framework would log NaN or infinity. Raises TraceError if a shape does not fit.
    """
    # Overflow and NaN are answers here: they become None.
    with np.errstate(all="ignore"):
        tokens = unmasked_tokens(pair)
        values = {name: of_framework(tokens) for name, of_framework in FRAMEWORKS.items()}
        values["prime_rl"] = prime_rl(
            tokens,
            unmasked_values("advantages", advantages, pair),
            unmasked_values("entropy", entropy, pair),
        )
    return values


def unmasked_values(name: str, values: ArrayLike | None, pair: PairedLogprobs) -> FloatArray | None:
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
