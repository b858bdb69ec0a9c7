"""Signs of routes that go wrong within a sequence: where flips begin, and whether that is a border.

In: Tokens and the pass over both sides' routes. Out: a Sign each. Free of torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from driftscope_probes.diagnosis.routing_differences import RouteDifferences, place_in_sequence
from driftscope_probes.diagnosis.routing_sign import SIGNIFICANT, Sign, tail_bound, where
from driftscope_probes.mismatch.number import BoolArray, FloatArray, IntArray
from driftscope_probes.tokens import Tokens

#: Before an onset at most this part of the flips after it.
NEAR_NONE: Final = 0.1
#: Chunks, pages and windows of engines: 32 to 32,768 tokens.
BORDERS: Final = tuple(2**power for power in range(5, 16))
#: The first flip comes up to this many tokens after the border, since not every token flips.
LATE: Final = 2


@dataclass(frozen=True, slots=True, eq=False)
class _Onsets:
    """By sequence with at least two counted tokens: where flips begin."""

    sequence: IntArray  # [found]
    token: IntArray  # [found] index of the first token after the split
    p_value: FloatArray  # [found] corrected for the places that were tried
    before: FloatArray  # [found] flips per token
    after: FloatArray  # [found]


def onset_signs(tokens: Tokens, found: RouteDifferences) -> tuple[Sign, Sign]:
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
    elif extras.prompt_lengths is not None:
        owner = np.searchsorted(tokens.cu_seqlens, onset, side="right") - 1
        prompt = extras.prompt_lengths[owner].astype(np.int64)
        counted_from["of the context"] = prompt + counted_from["of the sequence"]
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
