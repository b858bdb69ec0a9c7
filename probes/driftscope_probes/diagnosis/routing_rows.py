"""Signs of corrupt routes in one side alone: stale rows that repeat, and rows of padding.

In: Tokens and the expert ids of one side. Out: a Sign each. A row is the experts of one token in
all layers. Free of torch.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from driftscope_probes.diagnosis.routing_differences import (
    BLOCK_IDS,
    Routes,
    captured,
    names_twice,
    place_in_sequence,
    routing_layers,
)
from driftscope_probes.diagnosis.routing_sign import Side, Sign, tail_bound, where
from driftscope_probes.mismatch.number import BoolArray, IntArray
from driftscope_probes.tokens import Tokens

#: Tokens from which the chance of a padded row is taken.
SAMPLE_TOKENS: Final = 2**13


def row_signs(tokens: Tokens, routes: Routes, side: Side) -> tuple[Sign, ...]:
    """routes: checked, [tokens, layers, k]."""
    used = np.flatnonzero(routing_layers(routes))
    size = tokens.rollout.size
    repeats, padding = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
    counted = np.zeros(size, np.bool_)
    step = max(1, BLOCK_IDS // (used.size * routes.shape[2]))
    for start in range(0, size, step):
        block = slice(start, start + step)
        rows = _of_layers(routes[max(0, start - 1) : start + step], used)
        own = rows[min(start, 1) :]  # the one before them is there for the first comparison
        counted[block] = captured(own) & tokens.takes_part[block]
        repeats[max(start, 1) : start + step] = (rows[1:] == rows[:-1]).all(axis=(1, 2))
        padding[block] = _padding(own)
    return (
        _repeated(tokens, routes, used, repeats[1:], counted, side),
        _padded(tokens, routes, used, padding & counted, counted, side),
    )


def _of_layers(rows: Routes, used: IntArray) -> Routes:
    return rows if used.size == rows.shape[1] else rows[:, used]


def _padding(rows: Routes) -> BoolArray:
    """[tokens] of rows [tokens, layers, k]: every layer names an expert twice; for k = 1 the same
    expert in every layer, which only two and more layers can tell."""
    if rows.shape[2] > 1:
        padding = names_twice(rows[:, 0])
        padding[padding] = names_twice(rows[padding]).all(axis=-1)
        return padding
    if rows.shape[1] == 1:
        return np.zeros(rows.shape[0], np.bool_)
    return np.asarray((rows[:, 1:, 0] == rows[:, :1, 0]).all(axis=-1))


def _padded(
    tokens: Tokens,
    routes: Routes,
    used: IntArray,
    padding: BoolArray,
    counted: BoolArray,
    side: Side,
) -> Sign:
    count, of = int(np.count_nonzero(padding)), int(np.count_nonzero(counted))
    others = np.flatnonzero(counted & ~padding)
    others = others[:: max(1, others.size // SAMPLE_TOKENS)]
    expected = of * _padding_chance(routes[others][:, used]) if count else 0.0
    sequence, place = where(tokens, int(np.argmax(padding))) if count else (None, None)
    what = "an expert twice" if routes.shape[2] > 1 else "one and the same expert"
    return Sign(
        "padding_rows",
        side,
        count,
        of,
        expected,
        tail_bound(count, expected),
        f"{count:,} of {of:,} tokens name {what} in every layer; by chance {expected:.3g}.",
        sequence,
        place,
    )


def _padding_chance(rows: Routes) -> float:
    """Probability that layers which choose independently, each as in these tokens, look padded."""
    tokens, layers, k = rows.shape
    if k > 1:  # one token that was not seen is added: a rate of 0 would make all impossible
        return float(np.prod((names_twice(rows).sum(axis=0) + 1) / (tokens + 2)))
    experts, which = np.unique(rows, return_inverse=True)
    which = which.reshape(tokens, layers)
    chance = np.ones(experts.size)
    for layer in range(layers):
        chance *= np.bincount(which[:, layer], minlength=experts.size) / max(tokens, 1)
    return float(chance.sum())


def _repeated(
    tokens: Tokens,
    routes: Routes,
    used: IntArray,
    repeats: BoolArray,
    counted: BoolArray,
    side: Side,
) -> Sign:
    """The longest run of one row. Where the text itself repeats an id, a repeat says nothing."""
    pair = counted[1:] & counted[:-1] & (place_in_sequence(tokens)[1:] > 0)
    equal = pair & repeats
    telling = pair & _other_text(tokens)
    told = equal & telling
    trials = int(np.count_nonzero(telling))
    if not told.any():
        detail = f"None of {trials:,} tokens has the row of the token before it."
        return Sign("repeated_rows", side, 0, trials, 0.0, 1.0, detail)
    # A run goes on while rows are equal, and counts its telling pairs.
    run = np.cumsum(~equal)
    length = np.bincount(run, told)
    longest = int(np.argmax(length))
    members = np.flatnonzero((run == longest) & equal)
    first = int(members[0])
    others = ~(_of_layers(routes[:-1], used) == routes[first, used]).all(axis=(1, 2))
    # One repeat that was not seen is added: a rate of 0 would make every run impossible.
    rate = (np.count_nonzero(told & others) + 1) / (np.count_nonzero(telling & others) + 2)
    count = int(length[longest])
    by_chance = 1.0 + math.log(max(trials, 2)) / -math.log(rate)
    sequence, place = where(tokens, first)
    held = members.size + 1
    ids = "" if tokens.extras.token_ids is not None else " Without token_ids a loop of the text"
    ids += " would look like this too." if ids else ""
    return Sign(
        "repeated_rows",
        side,
        count + 1,
        trials,
        by_chance,
        min(1.0, trials * rate**count),
        f"{held:,} successive tokens hold one row of experts; the longest run by chance has "
        f"about {by_chance:.1f}.{ids}",
        sequence,
        place,
    )


def _other_text(tokens: Tokens) -> BoolArray:
    """[tokens - 1] whether token i + 1 follows another id, and so does the one before it: routes
    are recorded with the token that is read or with the one that is predicted."""
    ids = tokens.extras.token_ids
    if ids is None or ids.size < 2:
        return np.ones(max(0, tokens.rollout.size - 1), np.bool_)
    changed: BoolArray = ids[1:] != ids[:-1]
    before = np.concatenate([[True], changed[:-1]])
    starts: IntArray = tokens.cu_seqlens[1:-1]
    inner = starts[(starts > 0) & (starts < changed.size)]
    before[inner] = True  # the pair before it lies in two sequences
    telling: BoolArray = changed & before
    return telling
