"""Before and after one change: how far |Δ| fell or rose, and whether chance could do that.

In: |Δ| of the same tokens, twice. Out: Effect. Free of torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.controls.sides import NON_FINITE, Sequences

Moved = NDArray[np.float64]  # [tokens] |Δ| in nats
Direction = Literal["lowers", "raises", "neither"]
#: Of all changes that are tried, one in a hundred explanations may call a chance an effect.
FALSE_ALARMS: Final = 0.01
#: A change takes this part of the gap away, at least: rounding in another order, as any change of
#: a kernel brings, moves mean |Δ| of 256 tokens by up to a tenth either way (tiny Llama in bf16).
LEAST_SHARE: Final = 0.25
#: Tokens below which a mean has no error of its own.
LEAST_TOKENS: Final = 8


@dataclass(frozen=True, slots=True)
class Effect:
    before: float  # mean |Δ|, nats
    after: float
    z: float  # of the paired difference of means; positive: it fell
    needed: float  # what z must reach
    direction: Direction


def moved(engine: NDArray[np.floating], trainer: NDArray[np.floating]) -> Moved:
    """[tokens] |Δ|; NON_FINITE where a side is not finite, 0 where both have equal bits."""
    first, second = engine.astype(np.float64), trainer.astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart: Moved = np.abs(first - second)
    apart[~np.isfinite(apart)] = NON_FINITE
    apart[first == second] = 0.0
    return apart


def effect(before: Moved, after: Moved, *, tried: int) -> Effect:
    """[tokens] each, of the same tokens; `tried`: how many changes are looked at."""
    needed = NormalDist().inv_cdf(1.0 - FALSE_ALARMS / max(tried, 1))
    fell = before - after
    error = float(fell.std(ddof=1) / np.sqrt(fell.size)) if fell.size > 1 else 0.0
    mean = float(fell.mean()) if fell.size else 0.0
    z = mean / error if error else (np.inf * np.sign(mean) if mean else 0.0)
    first, second = (float(one.mean()) if one.size else 0.0 for one in (before, after))
    direction: Direction = "neither"
    if fell.size >= LEAST_TOKENS and abs(z) >= needed:
        if second <= (1.0 - LEAST_SHARE) * first:
            direction = "lowers"
        elif first <= (1.0 - LEAST_SHARE) * second:
            direction = "raises"
    return Effect(first, second, float(z), needed, direction)


def common(one: Sequences, other: Sequences) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """[tokens of each] whether a token stands behind the same tokens in both.

    Equal prompts; a token sampled differently has another context behind it. It itself is left
    out too: its values are of another token.
    """
    masks: tuple[list[bool], list[bool]] = ([], [])
    for first, second in zip(one.responses, other.responses, strict=True):
        same = 0
        while same < min(len(first), len(second)) and first[same] == second[same]:
            same += 1
        masks[0].extend(index < same for index in range(len(first)))
        masks[1].extend(index < same for index in range(len(second)))
    return np.array(masks[0], np.bool_), np.array(masks[1], np.bool_)
