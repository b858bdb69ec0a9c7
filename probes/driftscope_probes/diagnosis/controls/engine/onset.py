"""Truncated prompts: the exact position from which the engine differs.

In: a Bench. Out: dirty where the two sides agree up to a position and differ from there on.

Long texts are cut at every multiple of a tile, and the engine decodes one tile from each cut: every
position is decoded, whatever was in the prompt. A position is the number of keys that its token
attends to. Of 400 simulated onsets of 3.6 times the floor 361 were found exactly and 396 to within
one position; of 7 times the floor, 390 and all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.cause import Evidence
from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement, NotExercised
from driftscope_probes.diagnosis.controls.sides import AS_IS_ENGINE, LEAST_ROOM, Sampled, Tokens
from driftscope_probes.diagnosis.floor import AT_FLOOR_UP_TO

#: Divides the tiles of known attention kernels: 32, 64, 96, 128, 176.
TILE: Final = 16
#: Texts that are cut; each gives one token at every position.
TEXTS: Final = 4
#: Positions behind which no tile is looked for: twice FA3's largest.
MOST_POSITIONS: Final = 352
#: Sigma behind the onset over that before it, at least. Of 2,000 simulated healthy pairs (4 texts
#: of 160 tokens; normal noise, and Student's with 5 degrees of freedom) the likeliest split reached
#: 2.8.
LEAST_JUMP: Final = 3.0
#: Tokens on either side of an onset: fewer have no sigma of their own.
LEAST_TOKENS: Final = 2 * TILE


@dataclass(frozen=True, slots=True)
class Onset:
    position: int  # the first that differs
    before: float  # sigma, nats
    behind: float


def truncated_prompts(bench: Bench) -> Measurement:
    prompts = cut(_texts(bench))
    # One more than a tile: what is the first token of one cut, and so read, the cut before decodes.
    sampled = bench.respond(prompts, TILE + 1, AS_IS_ENGINE)
    moved = np.abs(
        bench.score(sampled.sequences).astype(np.float64) - sampled.logprobs.astype(np.float64)
    )
    found = find_onset(positions(sampled), moved, room(sampled), bench.floor_sigma)
    if found is None:
        return Measurement("clean", "position from which the sides differ", 0.0, "0: none")
    return Measurement(
        "dirty",
        "position from which the sides differ",
        float(found.position),
        "0: none",
        (
            Evidence("sigma before it", found.before, "the floor"),
            Evidence("sigma from it on", found.behind, "as before it"),
        ),
    )


def _texts(bench: Bench) -> Tokens:
    sequences = bench.sample().sequences
    texts = [
        prompt + response
        for prompt, response in zip(sequences.prompts, sequences.responses, strict=True)
    ]
    longest = sorted(texts, key=len, reverse=True)[:TEXTS]
    if len(longest[0]) < 2 * LEAST_TOKENS:
        raise NotExercised(
            f"the longest text has {len(longest[0])} tokens, which hold no border of a tile.",
            remedy=f"give prompts of at least {2 * LEAST_TOKENS} tokens.",
        )
    return tuple(longest)


def cut(texts: Tokens) -> Tokens:
    """Beginnings of every text, as long as each multiple of a tile; the engine continues them."""
    return tuple(
        text[:length]
        for text in texts
        for length in range(TILE, min(len(text), MOST_POSITIONS) - TILE + 1, TILE)
    )


def positions(sampled: Sampled) -> NDArray[np.int64]:
    """[tokens] number of keys that each response token was decoded with."""
    pairs = zip(sampled.sequences.prompts, sampled.sequences.responses, strict=True)
    return np.concatenate(
        [len(prompt) + np.arange(len(response), dtype=np.int64) for prompt, response in pairs]
    )


def room(sampled: Sampled) -> NDArray[np.float64]:
    """[tokens] 1 − p: how far noise of one nat on the logits moves each token."""
    certain: NDArray[np.float64] = np.expm1(np.minimum(sampled.logprobs.astype(np.float64), 0.0))
    return np.maximum(-certain, LEAST_ROOM)


def find_onset(
    where: NDArray[np.int64],
    moved: NDArray[np.float64],
    space: NDArray[np.float64],
    floor: float,
) -> Onset | None:
    """[tokens] each: position, |Δ| in nats, 1 − p. None: no jump from the floor to above it."""
    onset = likeliest_split(where, moved, space)
    if onset is None or onset.before > AT_FLOOR_UP_TO * floor:
        return None
    if onset.behind < max(LEAST_JUMP * onset.before, AT_FLOOR_UP_TO * floor):
        return None
    return replace(onset, position=_first_beyond(onset.position, where, moved / space))


def _first_beyond(split: int, where: NDArray[np.int64], noise: NDArray[np.float64]) -> int:
    """The split, or an earlier position from which on some token of each has unusual noise.

    By chance the first tokens that err may err little, and the likeliest split miss them.
    """
    usual = float(noise[where <= split - TILE].max(initial=0.0))
    while noise[where == split - 1].max(initial=0.0) > usual:
        split -= 1
    return split


def likeliest_split(
    where: NDArray[np.int64], moved: NDArray[np.float64], space: NDArray[np.float64]
) -> Onset | None:
    """Two normal distributions, of one sigma up to a position and of another from it on."""
    order = np.argsort(where, kind="stable")
    at, square, weight = where[order], moved[order] ** 2, space[order] ** 2
    first = np.flatnonzero(np.diff(at)) + 1  # index of the first token of each further position
    first = first[(first >= LEAST_TOKENS) & (first <= at.size - LEAST_TOKENS)]
    if not first.size:
        return None
    before = _variance(np.cumsum(square)[first - 1], np.cumsum(weight)[first - 1])
    behind = _variance(square.sum() - np.cumsum(square)[first - 1], _rest(weight, first))
    cost = first * np.log(before) + (at.size - first) * np.log(behind)
    best = int(np.argmin(cost))
    return Onset(int(at[first[best]]), float(before[best] ** 0.5), float(behind[best] ** 0.5))


#: Of a variance, so that equal bits have a logarithm: an eighth of fp32's last place, squared.
LEAST_VARIANCE: Final = 1e-16


def _variance(square: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    variance: NDArray[np.float64] = square / np.maximum(weight, LEAST_ROOM)
    return np.maximum(variance, LEAST_VARIANCE)


def _rest(weight: NDArray[np.float64], first: NDArray[np.int64]) -> NDArray[np.float64]:
    total: float = weight.sum()
    return total - np.cumsum(weight)[first - 1]


TRUNCATED_PROMPTS = Control(
    name="truncated_prompts",
    title="Cut the prompts at multiples of a tile",
    separates="An attention kernel that errs from one position on from errors at every position.",
    null="no onset (tiny Llama in bf16 and fp32, tiny MoE and SmolLM2 in bf16).",
    cost_s=6.0,
    positive="dirty",
    points_to={"fp8_kv_tile": 0.95, "rope_config": 0.3, "chunked_prompt_logprobs": 0.3},
    run=truncated_prompts,
)
