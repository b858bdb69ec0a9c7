"""Signs of corrupt routes between both sides: rows shifted by one, rows of another token, an onset.

In: Tokens, the expert ids of both sides and the pass over them. Out: a Sign each. Free of torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.routing_differences import (
    BLOCK_IDS,
    RouteDifferences,
    Routes,
    place_in_sequence,
)
from driftscope_probes.diagnosis.routing_sign import (
    SIGNIFICANT,
    Sign,
    share_tail_bound,
    tail_bound,
    where,
)
from driftscope_probes.mismatch.number import BoolArray, FloatArray, IntArray
from driftscope_probes.tokens import Tokens

#: The finaliser of MurmurHash3 (64 bits), which sends every id to a number of its own.
MIX: Final = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))
MIX_SHIFT: Final = np.uint64(33)
#: Choices that differ between two bf16 engines without a fault: R3, arXiv 2510.11370.
PUBLISHED_FLIPS: Final = 0.10
#: Tokens from which the frequencies of experts are taken: their error is then about 1 %.
FREQUENCY_TOKENS: Final = 2**13
#: A shift moves whole rows: a few layers show it as well as all do.
SHIFT_LAYERS: Final = 4
#: Before an onset at most this part of the flips after it.
NEAR_NONE: Final = 0.1
#: Chunks, pages and windows of engines: 32 to 32,768 tokens.
BORDERS: Final = tuple(2**power for power in range(5, 16))
#: The first flip comes up to this many tokens after the border, since not every token flips.
LATE: Final = 2


def alignment_signs(
    tokens: Tokens, rollout: Routes, trainer: Routes, found: RouteDifferences
) -> tuple[Sign, ...]:
    """rollout, trainer: checked, of one shape, [tokens, layers, k]."""
    return (
        _shifted(tokens, rollout, trainer, found),
        _unrelated(tokens, rollout, trainer, found),
        *_onset_signs(tokens, found),
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
    halfway = (1.0 + chance) / 2.0
    overlap = found.overlap / layers
    unrelated = found.counted & (overlap < halfway)
    count = int(np.count_nonzero(unrelated))
    related = overlap[found.counted & ~unrelated]
    replaced = 1.0 - float(related.mean()) if related.size else PUBLISHED_FLIPS
    replaced = max(replaced, PUBLISHED_FLIPS / found.k)
    expected = count_all * share_tail_bound(1.0 - halfway, replaced, layers)
    sequence, place = where(tokens, int(np.argmax(unrelated))) if count else (None, None)
    return Sign(
        "unrelated_rows",
        "both",
        count,
        count_all,
        expected,
        tail_bound(count, expected),
        f"{count:,} of {count_all:,} tokens share less than {halfway:.0%} of their experts "
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


@dataclass(frozen=True, slots=True, eq=False)
class _Onsets:
    """By sequence with at least two counted tokens: where flips begin."""

    sequence: IntArray  # [found]
    token: IntArray  # [found] index of the first token after the split
    p_value: FloatArray  # [found] corrected for the places that were tried
    before: FloatArray  # [found] flips per token
    after: FloatArray  # [found]


def _onset_signs(tokens: Tokens, found: RouteDifferences) -> tuple[Sign, Sign]:
    onsets = _onsets(tokens, found)
    sequences = onsets.sequence.size
    near_none = onsets.before <= NEAR_NONE * onsets.after
    corrected = np.minimum(1.0, onsets.p_value * max(1, sequences))
    begins: BoolArray = (corrected < SIGNIFICANT) & near_none
    count = int(np.count_nonzero(begins))
    least = int(np.argmin(np.where(near_none, corrected, 2.0))) if sequences else None
    has_one = least is not None and bool(near_none[least])
    p_value = float(corrected[least]) if least is not None and has_one else 1.0
    token = onsets.token[begins]
    sequence, place = where(tokens, int(token[0])) if count else (None, None)
    rates = "No sequence has flips that begin within it."
    if count:
        before, after = float(onsets.before[begins].mean()), float(onsets.after[begins].mean())
        rates = (
            f"Flips begin within {count:,} of {sequences:,} sequences: {before:.3g} per token "
            f"before, {after:.3g} from there on."
        )
    onset = Sign(
        "onset", "both", count, sequences, sequences * SIGNIFICANT, p_value, rates, sequence, place
    )
    return onset, _border_sign(tokens, token)


def _onsets(tokens: Tokens, found: RouteDifferences) -> _Onsets:
    """The most likely split of each sequence into two rates of flips per token (Poisson), its
    likelihood ratio divided by how much wider than Poisson the counts are."""
    index = np.flatnonzero(found.counted)
    limits = np.searchsorted(index, tokens.cu_seqlens)
    filled = np.flatnonzero(np.diff(limits) >= 2)
    length = np.diff(limits)[filled]
    inside = np.zeros(index.size + 1, np.int64)
    np.add.at(inside, limits[filled], 1)
    np.add.at(inside, limits[filled + 1], -1)
    index = index[np.cumsum(inside[:-1]) > 0]
    if not index.size:
        nothing = np.zeros(0)
        return _Onsets(filled, filled, nothing, nothing, nothing)
    start = np.concatenate([[0], np.cumsum(length)[:-1]])
    flips = found.flips[index]
    running = np.cumsum(flips)
    offset = np.repeat(running[start] - flips[start], length)
    done = np.arange(1, index.size + 1) - np.repeat(start, length)  # tokens up to and with this
    total, all_tokens = np.repeat(np.add.reduceat(flips, start), length), np.repeat(length, length)
    early, left = running - offset, all_tokens - done
    late = total - early
    ratio = _poisson(early, done) + _poisson(late, left) - _poisson(total, all_tokens)
    # Only rises count, and the last token splits nothing off.
    ratio[(left == 0) | (early * left >= late * done)] = -np.inf
    best = np.maximum.reduceat(ratio, start)
    at = np.flatnonzero(ratio == np.repeat(best, length))
    owner = np.repeat(np.arange(filled.size), length)[at]
    kept, first = np.unique(owner, return_index=True)
    at = at[first]
    rising = np.isfinite(best[kept])
    kept, at = kept[rising], at[rising]
    wide = _overdispersion(flips, start, length, kept, at)
    log_p = np.log(length[kept]) - best[kept] / wide
    return _Onsets(
        sequence=filled[kept],
        token=index[at + 1],
        p_value=np.exp(np.minimum(0.0, log_p)),
        before=early[at] / done[at],
        after=late[at] / left[at],
    )


def _poisson(count: IntArray, tokens: IntArray) -> FloatArray:
    """count · ln(count / tokens), 0 for no count."""
    rate = np.maximum(count, 1) / np.maximum(tokens, 1)
    found: FloatArray = np.where(count > 0, count * np.log(rate), 0.0)
    return found


def _overdispersion(
    flips: IntArray, start: IntArray, length: IntArray, kept: IntArray, at: IntArray
) -> float:
    """Pearson's χ² over its degrees of freedom, on both sides of every split; at least 1."""
    side = np.zeros(flips.size, np.int64)
    side[start] = 1
    side[at + 1] += 1
    segment = np.cumsum(side) - 1
    tokens = np.bincount(segment)
    mean = np.bincount(segment, flips) / np.maximum(tokens, 1)
    squares = np.bincount(segment, flips.astype(np.float64) ** 2) - tokens * mean**2
    some = mean > 0
    freedom = int((tokens[some] - 1).sum())
    return max(1.0, float((squares[some] / mean[some]).sum()) / freedom) if freedom else math.inf


def _border_sign(tokens: Tokens, onset: IntArray) -> Sign:
    """onset: [found] indices of tokens. Counted from the response and, where known, the prompt."""
    counted_from = {"of the sequence": place_in_sequence(tokens)[onset]}
    extras = tokens.extras
    if extras.position_ids is not None:
        counted_from["of the context"] = extras.position_ids[onset].astype(np.int64)
    tried = len(counted_from) * len(BORDERS)
    best = Sign("onset_at_border", "both", 0, onset.size, 0.0, 1.0, "No onset to place.")
    for what, place in counted_from.items():
        for border in BORDERS:
            near = (place % border <= LATE) & (place >= border)
            count, expected = int(np.count_nonzero(near)), onset.size * (LATE + 1) / border
            p_value = min(1.0, tried * tail_bound(count, expected))
            if count and (p_value, -border) < (best.p_value, 0) and p_value < 1.0:
                sequence, at = where(tokens, int(onset[np.argmax(near)]))
                best = Sign(
                    "onset_at_border",
                    "both",
                    count,
                    onset.size,
                    expected,
                    p_value,
                    f"{count:,} of {onset.size:,} onsets lie within {LATE} tokens after a multiple "
                    f"of {border:,} {what}, by chance {expected:.3g}.",
                    sequence,
                    at,
                )
    if not best.count and onset.size:
        best = Sign(
            "onset_at_border", "both", 0, onset.size, 0.0, 1.0, "No onset stands at a border."
        )
    return best
