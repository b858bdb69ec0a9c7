"""Where two greedy generations part, and whether that was a near tie. Free of torch.

In: what two engines said to the same prompts. Out: the first token that differs in each response,
and the responses where rounding alone may have decided it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.sides import EngineChange, Sampled, Sequences

#: Sum of the two margins, in sigmas of the floor: it is the difference of two differences of
#: logits, so that rounding makes it sqrt(2) sigma in the mean square; four of them.
NEAR_TIE: Final = 4.0 * 2.0**0.5


def parts_at(one: tuple[int, ...], other: tuple[int, ...]) -> int | None:
    """Index of the first token that differs; one that ended earlier parts there."""
    if one == other:
        return None
    pairs = enumerate(zip(one, other, strict=False))
    shorter = min(len(one), len(other))
    return next((index for index, (left, right) in pairs if left != right), shorter)


def near_ties(
    bench: Bench,
    ours: Sampled,
    fresh: Sampled,
    parted: Sequence[int | None],
    anew: EngineChange,
) -> frozenset[int]:
    """Indices of responses whose first differing tokens rounding alone may have swapped."""
    mine, other = ours.sequences.responses, fresh.sequences.responses
    asked = [
        (index, at)
        for index, at in enumerate(parted)
        if at is not None and at < min(len(mine[index]), len(other[index]))
    ]
    if not asked:
        return frozenset()
    prompts = tuple(ours.sequences.prompts[index] for index, _ in asked)
    # Each engine's value of what the other one said, after the same tokens.
    crossed = [
        bench.rescore(
            Sequences(prompts, tuple(theirs[index][: at + 1] for index, at in asked)), change
        )
        for theirs, change in ((other, EngineChange()), (mine, anew))
    ]
    ends = np.cumsum([at + 1 for _, at in asked]) - 1
    own = [
        np.array([said.logprobs[said.sequences.cu_seqlens[index] + at] for index, at in asked])
        for said in (ours, fresh)
    ]
    margins = sum(o.astype(np.float64) - c[ends] for o, c in zip(own, crossed, strict=True))
    near = margins <= NEAR_TIE * bench.floor_sigma
    return frozenset(index for (index, _), tie in zip(asked, near, strict=True) if tie)
