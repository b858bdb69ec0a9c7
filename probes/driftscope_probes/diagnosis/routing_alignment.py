"""Signs of corrupt routes between both sides: rows shifted by one, rows of another token.

In: Tokens, the expert ids of both sides and the pass over them. Out: a Sign each. Free of torch.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.routing_differences import (
    BLOCK_IDS,
    RouteDifferences,
    Routes,
)
from driftscope_probes.diagnosis.routing_onset import onset_signs
from driftscope_probes.diagnosis.routing_sign import (
    SIGNIFICANT,
    Sign,
    share_tail_bound,
    tail_bound,
    where,
)
from driftscope_probes.mismatch.number import IntArray
from driftscope_probes.tokens import Tokens

#: The finaliser of MurmurHash3 (64 bits), which sends every id to a number of its own.
MIX: Final = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))
MIX_SHIFT: Final = np.uint64(33)
#: Choices that differ between two bf16 engines without a fault: R3, arXiv 2510.11370.
PUBLISHED_FLIPS: Final = 0.10
#: How far from chance to agreement the overlap of an unrelated row may lie. A token with a near tie
#: in every layer has lost 1/k of its experts: at k = 2 halfway would already be too much.
NEAR_CHANCE: Final = 0.25
#: Tokens from which the frequencies of experts are taken: their error is then about 1 %.
FREQUENCY_TOKENS: Final = 2**13
#: A shift moves whole rows: a few layers show it as well as all do.
SHIFT_LAYERS: Final = 4


def alignment_signs(
    tokens: Tokens, rollout: Routes, trainer: Routes, found: RouteDifferences
) -> tuple[Sign, ...]:
    """rollout, trainer: checked, of one shape, [tokens, layers, k]."""
    return (
        _shifted(tokens, rollout, trainer, found),
        _unrelated(tokens, rollout, trainer, found),
        *onset_signs(tokens, found),
    )


def _shifted(tokens: Tokens, rollout: Routes, trainer: Routes, found: RouteDifferences) -> Sign:
    """A token votes for a neighbour where the trainer's route there fits the rollout's better."""
    size, sequences = tokens.rollout.size, tokens.sequences
    wins = np.zeros((2, sequences), np.int64)
    losses = np.zeros((2, sequences), np.int64)
    owner = np.repeat(np.arange(sequences), np.diff(tokens.cu_seqlens))
    layers = found.layers[:: max(1, found.layers.size // SHIFT_LAYERS)]
    step = max(1, BLOCK_IDS // max(1, layers.size * found.k))
    for start in range(0, size - 1, step):
        rows = slice(start, min(start + step + 1, size))  # one more: the last pair's second
        a, b = (_set_keys(side[rows, layers]) for side in (rollout, trainer))
        here, own = found.counted[rows], owner[rows]
        pair = here[1:] & here[:-1] & (own[1:] == own[:-1])
        fits = (a == b).sum(axis=1)
        for lag, shifted, unshifted in (
            (0, (a[1:] == b[:-1]).sum(axis=1), fits[1:]),
            (1, (a[:-1] == b[1:]).sum(axis=1), fits[:-1]),
        ):
            for votes, chosen in ((wins, shifted > unshifted), (losses, shifted < unshifted)):
                votes[lag] += np.bincount(own[1:][chosen & pair], minlength=sequences)
    return _shift_sign(wins, losses)


def _set_keys(rows: Routes) -> NDArray[np.uint64]:
    """[tokens, layers] of rows [tokens, layers, k]: equal where the sets of experts are, whatever
    their order: the sum of a 64-bit hash of each id."""
    key: NDArray[np.uint64] = rows.astype(np.uint64) + np.uint64(1)  # the hash of 0 is 0
    for factor in MIX:
        key ^= key >> MIX_SHIFT
        key *= factor
    key ^= key >> MIX_SHIFT
    total: NDArray[np.uint64] = key.sum(axis=2, dtype=np.uint64)
    return total


def _shift_sign(wins: IntArray, losses: IntArray) -> Sign:
    """wins, losses: [2, sequences] votes for the token before and for the one after."""
    votes = wins + losses
    with np.errstate(invalid="ignore", divide="ignore"):
        lead = np.where(votes > 0, np.maximum(wins - votes / 2, 0.0), 0.0)
        # Hoeffding, and Bonferroni over the sequences and both neighbours.
        single = np.where(votes > 0, np.exp(-2.0 * lead**2 / np.maximum(votes, 1)), 1.0)
    single = np.minimum(1.0, single * votes.size)
    both = votes.sum(axis=1)
    leads = np.maximum(wins.sum(axis=1) - both / 2, 0.0)
    pooled = np.minimum(1.0, 2.0 * np.exp(-2.0 * leads**2 / np.maximum(both, 1)))
    lag = int(np.argmin(np.minimum(pooled, single.min(axis=1, initial=1.0))))
    p_value = float(min(pooled[lag], single[lag].min(initial=1.0)))
    # Where only all of them together are significant, those are meant that lean that way.
    shifted = single[lag] < SIGNIFICANT
    if pooled[lag] < SIGNIFICANT:
        shifted |= wins[lag] > losses[lag]
    count = int(np.count_nonzero(shifted))
    neighbour = ("before", "after")[lag]
    ahead, behind = int(wins[lag].sum()), int(losses[lag].sum())
    return Sign(
        "shifted_rows",
        "both",
        count,
        wins.shape[1],
        0.0,
        p_value,
        f"The rollout's route fits the trainer's for the token {neighbour} it better at "
        f"{ahead:,} tokens, and its own better at {behind:,}.",
        int(np.argmax(shifted)) if count else None,
        0 if count else None,
    )


def _unrelated(tokens: Tokens, rollout: Routes, trainer: Routes, found: RouteDifferences) -> Sign:
    """A near tie replaces one expert of some layers; a row of another token nearly all of them."""
    count_all, layers = found.tokens, found.layers.size
    if not count_all:
        return Sign("unrelated_rows", "both", 0, 0, 0.0, 1.0, "No token has both routes.")
    chance = _chance_overlap(rollout, trainer, found)
    least = chance + NEAR_CHANCE * (1.0 - chance)
    overlap = found.overlap / layers
    unrelated = found.counted & (overlap < least)
    count = int(np.count_nonzero(unrelated))
    related = overlap[found.counted & ~unrelated]
    replaced = 1.0 - float(related.mean()) if related.size else PUBLISHED_FLIPS
    replaced = max(replaced, PUBLISHED_FLIPS / found.k)
    expected = count_all * share_tail_bound(1.0 - least, replaced, layers)
    sequence, place = where(tokens, int(np.argmax(unrelated))) if count else (None, None)
    return Sign(
        "unrelated_rows",
        "both",
        count,
        count_all,
        expected,
        tail_bound(count, expected),
        f"{count:,} of {count_all:,} tokens share less than {least:.0%} of their experts "
        f"(routes of two arbitrary tokens share {chance:.0%}); near ties explain {expected:.3g}.",
        sequence,
        place,
    )


def _chance_overlap(rollout: Routes, trainer: Routes, found: RouteDifferences) -> float:
    """Mean |A∩B| / k of a rollout's and a trainer's choice that have nothing to do with each
    other: by layer the sum over the experts of the product of both sides' frequencies."""
    index = np.flatnonzero(found.counted)
    index = index[:: max(1, index.size // FREQUENCY_TOKENS)]
    total = 0.0
    for layer in found.layers:
        sides = np.stack([side[index, layer].astype(np.int64) for side in (rollout, trainer)])
        experts, which = np.unique(sides, return_inverse=True)
        first, second = (
            np.bincount(ids.ravel(), minlength=experts.size) / index.size
            for ids in which.reshape(sides.shape)
        )
        total += float(first @ second) / found.k
    return min(1.0, total / found.layers.size)
