"""Signs of corrupt routes in one side's rows: stale ones that repeat, and rows of padding.

In: Tokens and the expert ids of one side or both. Out: Signs. A row is the experts of one token in
all layers. Free of torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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
from driftscope_probes.diagnosis.routing_sign import SIGNIFICANT, Side, Sign, tail_bound, where
from driftscope_probes.mismatch.number import BoolArray, IntArray
from driftscope_probes.tokens import Tokens

#: Tokens from which the chance of a padded row is taken.
SAMPLE_TOKENS: Final = 2**13
LOOP: Final = "a text that repeats one token, which token_ids would tell"


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """One side's rows, one value per token."""

    used: IntArray  # [layers] that route
    counted: BoolArray  # [tokens] unmasked, with a route
    repeats: BoolArray  # [tokens - 1] the row of token i + 1 is that of token i of its sequence
    padding: BoolArray  # [tokens]


def row_signs(
    tokens: Tokens, rollout: Routes | None, trainer: Routes | None, replayed: bool
) -> tuple[Sign, ...]:
    """rollout, trainer: checked, [tokens, layers, k]. replayed: no choice differs between them, so
    that the trainer's are no second word on the rollout's.
    """
    sides: tuple[tuple[Side, Routes | None], ...] = (("rollout", rollout), ("trainer", trainer))
    given = {side: routes for side, routes in sides if routes is not None}
    rows = {side: _rows(tokens, routes) for side, routes in given.items()}
    both = len(rows) == 2 and not replayed
    telling = ~np.logical_and.reduce([one.repeats for one in rows.values()]) if both else None
    signs: list[Sign] = []
    for side, one in rows.items():
        signs += [
            _repeated(tokens, one, telling, side),
            _padded(tokens, given[side], one, side),
        ]
    return tuple(signs)


def _rows(tokens: Tokens, routes: Routes) -> _Rows:
    used = np.flatnonzero(routing_layers(routes))
    size = tokens.rollout.size
    equal, padding = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
    counted = np.zeros(size, np.bool_)
    step = max(1, BLOCK_IDS // (used.size * routes.shape[2]))
    for start in range(0, size, step):
        block = slice(start, start + step)
        rows = _of_layers(routes[max(0, start - 1) : start + step], used)
        own = rows[min(start, 1) :]  # the one before them is there for the first comparison
        counted[block] = captured(own) & tokens.takes_part[block]
        equal[max(start, 1) : start + step] = (rows[1:] == rows[:-1]).all(axis=(1, 2))
        padding[block] = _padding(own)
    pair = counted[1:] & counted[:-1] & (place_in_sequence(tokens)[1:] > 0)
    return _Rows(used, counted, equal[1:] & pair, padding & counted)


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


def _padded(tokens: Tokens, routes: Routes, rows: _Rows, side: Side) -> Sign:
    counted, padding = rows.counted, rows.padding
    count, of = int(np.count_nonzero(padding)), int(np.count_nonzero(counted))
    # A router names no expert twice, so that padding alone would make such a row likely; but it may
    # well have a favourite, so that at k = 1 rows which look padded belong to its frequencies.
    others = np.flatnonzero(counted & ~padding if routes.shape[2] > 1 else counted)
    others = others[:: max(1, others.size // SAMPLE_TOKENS)]
    expected = of * _padding_chance(routes[others][:, rows.used]) if count else 0.0
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
        chance *= np.bincount(which[:, layer], minlength=experts.size) / tokens
    return float(chance.sum())


def _repeated(tokens: Tokens, rows: _Rows, not_both: BoolArray | None, side: Side) -> Sign:
    """The longest run of one row. A repeat says nothing where the text repeats an id; without ids
    none where the other side, which routed by itself, repeats its row as well (`not_both`).
    """
    counted, equal = rows.counted, rows.repeats
    telling = counted[1:] & counted[:-1] & (place_in_sequence(tokens)[1:] > 0)
    known = tokens.extras.token_ids is not None
    if known:
        telling &= _other_text(tokens)
    elif not_both is not None:
        telling &= not_both
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
    # Of runs, not of pairs: long ones would raise the rate and hide each other. Three standard
    # deviations above what was counted: where nearly all rows repeat, so may any run.
    starts = int(np.count_nonzero(length))
    high = starts + 3.0 * math.sqrt(starts) + 4.0
    rate = min(1.0, high / (trials - int(length.sum()) + 1))
    count = int(length[longest])
    by_chance = 1.0 + (math.log(trials) / -math.log(rate) if rate < 1.0 else trials)
    alike = length[trials * rate**length < SIGNIFICANT]
    sequence, place = where(tokens, int(members[0]))
    many = f" {alike.size:,} such runs hold {int(alike.sum()) + alike.size:,} tokens."
    return Sign(
        "repeated_rows",
        side,
        count + 1,
        trials,
        by_chance,
        min(1.0, trials * rate**count),
        f"{members.size + 1:,} successive tokens hold one row of experts; the longest run by "
        f"chance has about {by_chance:.1f}.{many if alike.size > 1 else ''}",
        sequence,
        place,
        None if known or not_both is not None else LOOP,
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
