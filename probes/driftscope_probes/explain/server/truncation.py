"""From which position, or which length of the prompt, server and trainer part.

In: functions that score the beginning of some texts. Out: Onset, or none. Free of torch.

One pass over the whole texts gives |Δ| at every position; the split of two noises that explains it
best is where a window, tile, chunk or table begins. Cutting the texts behind and before it tells
whether it hangs on the position or on the length: a rotary that scales itself with the length
(dynamic NTK, LongRoPE) moves every position of a long prompt and none of a short one, and there the
length is found by halving.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.controls.engine.onset import TILE, find_onset
from driftscope_probes.diagnosis.floor import AT_FLOOR_UP_TO

#: `position`: tokens from here on, however long the prompt. `length`: every token of a prompt that
#: is at least so long. `everywhere`: from the first tokens on. `none`: at the floor throughout.
Where = Literal["position", "length", "everywhere", "none"]
#: Of a prompt that is cut: fewer tokens give no sigma.
LEAST_LENGTH: Final = 2 * TILE
#: A sigma of the whole texts over that of their beginnings from which on the length is at fault.
JUMP: Final = 3.0


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """Of texts cut at one length: tokens of all texts, in any order."""

    position: NDArray[np.int64]  # [tokens] number of tokens before it, in its text
    moved: NDArray[np.float64]  # [tokens] |Δ| in nats
    room: NDArray[np.float64]  # [tokens] 1 − p

    @property
    def sigma(self) -> float:
        return float(np.sqrt(np.sum(self.moved**2) / np.sum(self.room**2)))

    def before(self, position: int) -> Profile:
        kept = self.position < position
        return Profile(self.position[kept], self.moved[kept], self.room[kept])


@dataclass(frozen=True, slots=True)
class Step:
    length: int  # tokens
    sigma: float


@dataclass(frozen=True, slots=True)
class Onset:
    where: Where
    at: int | None  # position (tokens before it) or length in tokens
    sigma_before: float
    sigma_from: float
    steps: tuple[Step, ...]  # every length that was asked, in order

    @property
    def found(self) -> bool:
        return self.where in ("position", "length")


def locate(measure: Callable[[int], Profile], longest: int, floor: float) -> Onset:
    """`measure`: the texts cut at a length. `floor`: sigma that rounding explains.

    Asks 1 + ceil(log2(longest)) lengths at most. Raises whatever `measure` raises.
    """
    asked: dict[int, Profile] = {}

    def at(length: int) -> Profile:
        if length not in asked:
            asked[length] = measure(length)
        return asked[length]

    def answer(where: Where, position: int | None, before: float, behind: float) -> Onset:
        steps = tuple(Step(length, profile.sigma) for length, profile in asked.items())
        return Onset(where, position, before, behind, steps)

    bound = AT_FLOOR_UP_TO * floor
    whole = at(longest)
    split = find_onset(whole.position, whole.moved, whole.room, floor)
    if split is not None:
        # A prompt that ends there, and so is read in another chunk, block and length.
        short = at(min(max(split.position + TILE, LEAST_LENGTH), longest))
        if short.before(split.position).sigma <= max(bound, split.before * JUMP):
            return answer("position", split.position, split.before, split.behind)
    if whole.sigma <= bound:
        return answer("none", None, whole.sigma, whole.sigma)
    shortest = at(LEAST_LENGTH)
    if shortest.sigma * JUMP > whole.sigma or shortest.sigma > bound:
        return answer("everywhere", None, shortest.sigma, whole.sigma)
    low, high = LEAST_LENGTH, longest  # healthy, and not
    threshold = max(bound, float(np.sqrt(shortest.sigma * whole.sigma)))
    while high - low > 1:
        middle = (low + high) // 2
        if at(middle).sigma > threshold:
            high = middle
        else:
            low = middle
    return answer("length", high, at(low).sigma, at(high).sigma)
