"""Signs of corrupt routes in one side alone: stale rows that repeat, and rows of padding.

In: Tokens and the expert ids of one side. Out: a Sign each. A row is the experts of one token in
all layers. Free of torch.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

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

#: Multipliers of the hash of a row; any fixed draw will do.
SEED: Final = 36404


def row_signs(tokens: Tokens, routes: Routes, side: Side) -> tuple[Sign, ...]:
    """routes: checked, [tokens, layers, k]."""
    used = np.flatnonzero(routing_layers(routes))
    size, ids_per_token = tokens.rollout.size, used.size * routes.shape[2]
    key, padding = np.zeros(size, np.uint64), np.zeros(size, np.bool_)
    counted = np.zeros(size, np.bool_)
    factors = np.random.default_rng(SEED).integers(1, 2**64, ids_per_token, np.uint64) | 1
    step = max(1, BLOCK_IDS // ids_per_token)
    for start in range(0, size, step):
        block = slice(start, start + step)
        rows = routes[block] if used.size == routes.shape[1] else routes[block, used]
        counted[block] = captured(rows) & tokens.takes_part[block]
        key[block] = rows.reshape(rows.shape[0], -1).astype(np.uint64) @ factors
        padding[block] = _padding(rows)
    return (
        _repeated(tokens, key, counted, side),
        _padded(tokens, routes[:, used], padding & counted, counted, side),
    )


def _padding(rows: Routes) -> BoolArray:
    """[tokens] of rows [tokens, layers, k]: every layer names an expert twice; for k = 1 the same
    expert in every layer, which only two and more layers can tell."""
    if rows.shape[2] > 1:
        return np.asarray(names_twice(rows).all(axis=-1))
    if rows.shape[1] == 1:
        return np.zeros(rows.shape[0], np.bool_)
    return np.asarray((rows[:, 1:, 0] == rows[:, :1, 0]).all(axis=-1))


def _padded(
    tokens: Tokens, routes: Routes, padding: BoolArray, counted: BoolArray, side: Side
) -> Sign:
    count, of = int(np.count_nonzero(padding)), int(np.count_nonzero(counted))
    expected = 0.0
    if count and routes.shape[2] == 1:
        expected = of * _one_expert_chance(routes[counted & ~padding, :, 0])
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


def _one_expert_chance(ids: Routes) -> float:
    """Probability that independent layers of [tokens, layers] ids choose the same expert."""
    if not ids.shape[0]:
        return 0.0
    experts, index = np.unique(ids, return_inverse=True)
    index = index.reshape(ids.shape)
    chance = np.ones(experts.size)
    for layer in range(ids.shape[1]):
        chance *= np.bincount(index[:, layer], minlength=experts.size) / ids.shape[0]
    return float(chance.sum())


def _repeated(tokens: Tokens, key: NDArray[np.uint64], counted: BoolArray, side: Side) -> Sign:
    """The longest run of one row. Where the text itself repeats an id, a repeat says nothing."""
    pair = counted[1:] & counted[:-1] & (place_in_sequence(tokens)[1:] > 0)
    equal = pair & (key[1:] == key[:-1])
    telling = pair & _other_text(tokens)
    repeats = equal & telling
    trials = int(np.count_nonzero(telling))
    if not repeats.any():
        detail = f"None of {trials:,} tokens has the row of the token before it."
        return Sign("repeated_rows", side, 0, trials, 0.0, 1.0, detail)
    # A run goes on while rows are equal, and counts its telling pairs.
    run = np.cumsum(~equal)
    length = np.bincount(run, repeats)
    longest = int(np.argmax(length))
    members = np.flatnonzero((run == longest) & equal)
    first, row = int(members[0]), key[members[0]]
    others = key[:-1] != row
    # One repeat that was not seen is added: a rate of 0 would make every run impossible.
    rate = (np.count_nonzero(repeats & others) + 1) / (np.count_nonzero(telling & others) + 2)
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
    if ids is None:
        return np.ones(tokens.rollout.size - 1, np.bool_)
    changed: BoolArray = ids[1:] != ids[:-1]
    before = np.concatenate([[True], changed[:-1]])
    starts: IntArray = tokens.cu_seqlens[1:-1]
    inner = starts[(starts > 0) & (starts < changed.size)]
    before[inner] = True  # the pair before it lies in two sequences
    telling: BoolArray = changed & before
    return telling
