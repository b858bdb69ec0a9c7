"""Oddities: what is wrong with the values of a step, each with value, count, place and words.

In: tokens and their comparison. Out: Oddities. Where the comparison counted nothing odd, the tokens
are not looked at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.mismatch.comparison import Comparison
from driftscope_probes.mismatch.counts import SIDES, Hygiene
from driftscope_probes.mismatch.impossible import (
    CERTAIN_ABOVE,
    MOST_LOOKED_AT,
    ROUNDING_ABOVE_ZERO,
    OddValues,
    find_impossible,
    most_frequent,
    repeated_value,
)
from driftscope_probes.mismatch.number import IntArray
from driftscope_probes.mismatch.stored_bits import FLOAT32_BITS, FORMAT_OF_BITS, storing_noise
from driftscope_probes.mismatch.terms import ABOUT_ZERO, SENTINEL_AT_MOST
from driftscope_probes.mismatch.token_places import TokenPlaces, token_places
from driftscope_probes.tokens import Tokens

Kind = Literal[
    "nan",
    "minus_infinity",
    "plus_infinity",
    "sentinel",
    "constant",
    "zero",
    "positive",
    "negative_id",
    "grid",
]
#: One value holds at least this share: the others are named as such.
ONE_CONSTANT = 0.99
#: Storing explains the difference where its noise is at least this share of it.
AS_LARGE = 0.7
#: Sequences that are listed first, of those with an odd value.
LISTED = 1000


@dataclass(frozen=True, slots=True)
class Oddity:
    side: str  # rollout or trainer
    kind: Kind
    count: int  # tokens
    value: float | None  # the constant, also of ids; of values above 0 the highest; None: no one
    place: TokenPlaces | None  # None: of the whole side
    sentence: str
    faulty: bool  # False: rounding, named because somebody will ask

    def to_dict(self) -> dict[str, Any]:
        return {
            "side": self.side,
            "kind": self.kind,
            "count": self.count,
            "value": self.value,
            "place": None if self.place is None else self.place.to_dict(),
            "sentence": self.sentence,
            "faulty": self.faulty,
        }


@dataclass(frozen=True, slots=True)
class Oddities:
    found: tuple[Oddity, ...]
    sequences: tuple[int, ...]  # that hold a faulty value, at most LISTED
    tokens: int  # faulty ones
    left_tokens: int  # in the statistics, and not faulty
    left_abs_diff_mean: float | None  # nats, of those; None: there is none, or none is faulty

    def to_dict(self) -> dict[str, Any]:
        return {
            "found": [one.to_dict() for one in self.found],
            "sequences": list(self.sequences),
            "tokens": self.tokens,
            "without_them": {
                "tokens": self.left_tokens,
                "abs_diff_mean": self.left_abs_diff_mean,
            },
        }


def oddities(
    tokens: Tokens, comparison: Comparison, sampled_ids: NDArray[np.integer[Any]] | None = None
) -> Oddities:
    """`comparison`: of these tokens. sampled_ids: [tokens], where the engine returned them."""
    grids = [grid for side in SIDES if (grid := _grid(tokens, comparison, side)) is not None]
    rows = None if tokens.mask is None else np.flatnonzero(tokens.mask)
    pair = [side if rows is None else side[rows] for side in (tokens.rollout, tokens.trainer)]
    odd_ids = [
        (side, negative)
        for side, ids in (("rollout", sampled_ids), ("trainer", tokens.extras.token_ids))
        if ids is not None and (negative := np.flatnonzero((ids < 0) & tokens.takes_part)).size
    ]
    if not odd_ids and not _anything(comparison.hygiene, pair):
        return Oddities(tuple(grids), (), 0, comparison.hygiene.tokens, None)
    impossible = find_impossible(pair[0], pair[1], lambda own: own if rows is None else rows[own])
    found: list[Oddity] = []
    bad: list[IntArray] = []
    for side, odd in zip(SIDES, (impossible.rollout, impossible.trainer), strict=True):
        highest: float = getattr(comparison.hygiene, f"{side}_highest")
        of_side, faulty = _of_side(tokens, side, odd, highest, comparison.hygiene)
        found += of_side
        bad += faulty
    for side, negative in odd_ids:
        found.append(_negative_ids(tokens, side, sampled_ids, negative))
        bad.append(negative)
    every = np.unique(np.concatenate(bad)) if bad else np.zeros(0, np.int64)
    left, mean = _without(tokens, every) if every.size else (comparison.hygiene.tokens, None)
    which = np.unique(np.searchsorted(tokens.cu_seqlens, every, side="right") - 1)
    found.sort(key=lambda one: (not one.faulty, -one.count))
    return Oddities((*found, *grids), tuple(which[:LISTED].tolist()), int(every.size), left, mean)


def _negative_ids(
    tokens: Tokens,
    side: str,
    sampled_ids: NDArray[np.integer[Any]] | None,
    rows: IntArray,
) -> Oddity:
    """No token has a negative id: -100 marks labels that count for nothing, -1 padding."""
    ids = sampled_ids if side == "rollout" else tokens.extras.token_ids
    assert ids is not None
    values = np.unique(ids[rows])
    place = token_places(tokens, rows)
    name = "rollout_token_ids" if side == "rollout" else "token_ids"
    are = "is" if rows.size == 1 else "are"
    what = f"{values[0]}" if values.size == 1 else f"negative, {values[0]} to {values[-1]}"
    return Oddity(
        side,
        "negative_id",
        int(rows.size),
        float(values[0]) if values.size == 1 else None,
        place,
        f"{rows.size:,} {name} {are} {what}: {place.words}. No token has such an id; leave what is "
        "padding or a masked label out of the mask.",
        True,
    )


def _anything(counted: Hygiene, pair: list[NDArray[Any]]) -> bool:
    kinds = ("nonfinite", "sentinel", "positive", "zero_unmatched")
    if any(getattr(counted, f"{side}_{kind}") for side in SIDES for kind in kinds):
        return True
    rollout, trainer = pair
    return bool(
        repeated_value(rollout, trainer)[0].size or repeated_value(trainer, rollout)[0].size
    )


def _of_side(
    tokens: Tokens, side: str, odd: OddValues, highest: float, counted: Hygiene
) -> tuple[list[Oddity], list[IntArray]]:
    """What is said of a side, and the rows of its faulty values."""
    values = tokens.rollout if side == "rollout" else tokens.trainer
    other = "trainer" if side == "rollout" else "rollout"
    partner = tokens.trainer if side == "rollout" else tokens.rollout
    found: list[Oddity] = []
    bad: list[IntArray] = []

    def add(
        kind: Kind, rows: IntArray, value: float | None, what: str, faulty: bool = True
    ) -> None:
        place = token_places(tokens, rows)
        noun = f"{side} value is" if rows.size == 1 else f"{side} values are"
        sentence = f"{rows.size:,} {noun} {what}: {place.words}."
        found.append(Oddity(side, kind, int(rows.size), value, place, sentence, faulty))
        if faulty:
            bad.append(rows)

    for kind, rows, name in (
        ("nan", odd.nan, "NaN"),
        ("minus_infinity", odd.minus_infinity, "−∞"),
        ("plus_infinity", odd.plus_infinity, "+∞"),
    ):
        if rows.size:
            add(kind, rows, None, name)  # type: ignore[arg-type]  # literals of the lines above
    if odd.sentinel.size:
        value, what = _constant(values[odd.sentinel])
        below = f"{what}, and no log-probability (below {SENTINEL_AT_MOST:g})"
        add("sentinel", odd.sentinel, value, below)
    if odd.zero.size:
        typical = float(np.median(partner[odd.zero]))
        there = "it is" if odd.zero.size == 1 else "its median there is"
        what = f"exactly 0 where the {other} is not ({there} {typical:.3g} nats)"
        if typical > CERTAIN_ABOVE:
            what += ", as of a token alone in its nucleus"
        add("zero", odd.zero, 0.0, what, typical <= CERTAIN_ABOVE)
    repeated = odd.repeated
    if repeated.size and odd.repeated_value is not None:
        what = f"one constant, {_plain(odd.repeated_value)}, where the {other} varies"
        add("constant", repeated, odd.repeated_value, what)
    above = odd.positive[~np.isin(odd.positive, repeated, assume_unique=True)]
    if above.size:
        value, what = _constant(values[above])
        if value is not None and above.size > 1:
            add("constant", above, value, what)
        else:
            top = float(values[above].max())
            add("positive", above, top, f"above 0, up to +{top:.3g} nats ({_why_above(top)})")
    elif not repeated.size and 0.0 < highest <= ROUNDING_ABOVE_ZERO:
        count: int = getattr(counted, f"{side}_positive")
        sentence = f"{count:,} {side} values are above 0 by at most {highest:.1g}: rounding."
        found.append(Oddity(side, "positive", count, highest, None, sentence, False))
    return found, bad


def _why_above(top: float) -> str:
    if top > 1.0:
        return "no log-probability: a probability, or its sign is lost"
    return "rounding leaves 1e-7: a rounded logit against an exact log-sum-exp"


def _constant(values: NDArray[Any]) -> tuple[float | None, str]:
    """The value where there is one, and in words."""
    value, count = most_frequent(values)
    if count == values.size:
        return value, f"exactly {_plain(value)}" if count == 1 else f"one constant, {_plain(value)}"
    if count >= ONE_CONSTANT * values.size:
        return value, f"one constant, {_plain(value)}, but for {values.size - count:,}"
    low, high = float(values.min()), float(values.max())
    return None, f"between {_plain(low)} and {_plain(high)}"


def _plain(value: float) -> str:
    return f"{value:.1f}" if value == round(value, 1) else f"{value:.6g}"


def _grid(tokens: Tokens, comparison: Comparison, side: str) -> Oddity | None:
    """Values that need fewer bits than float32 has."""
    bits: int = getattr(comparison.stored, f"{side}_significant_bits")
    if bits >= FLOAT32_BITS:
        return None
    half: float = getattr(comparison.stored, f"{side}_half_step_p99")
    noise, difference = _noises(tokens, side, bits)
    if difference <= 0.0:
        beside = "and both sides are equal"
    elif noise >= AS_LARGE * difference:
        beside = "as large as the difference"
    else:
        beside = f"{noise / difference:.0%} of the difference"
    stored = np.dtype((tokens.rollout if side == "rollout" else tokens.trainer).dtype).name
    sentence = (
        f"The {side}'s values have {bits} significant bits ({FORMAT_OF_BITS[bits]}'s grid in "
        f"{stored}): half a step is up to {half:.1g} nats, {beside}."
    )
    large = difference > 0.0 and noise >= AS_LARGE * difference
    return Oddity(side, "grid", tokens.rollout.size, None, None, sentence, large)


def _noises(tokens: Tokens, side: str, bits: int) -> tuple[float, float]:
    """Root mean squares, nats, on a part of the tokens: of rounding to the grid, and of Δ."""
    every = slice(None, None, max(1, tokens.rollout.size // MOST_LOOKED_AT))
    rollout, trainer = (
        side_[every].astype(np.float64) for side_ in (tokens.rollout, tokens.trainer)
    )
    with np.errstate(invalid="ignore", over="ignore"):
        diff = trainer - rollout
        inside = np.isfinite(diff) & (rollout > SENTINEL_AT_MOST) & (trainer > SENTINEL_AT_MOST)
    if tokens.mask is not None:
        inside &= tokens.mask[every]
    if not inside.any():
        return 0.0, 0.0
    values = rollout if side == "rollout" else trainer
    return storing_noise(values[inside], bits), float(np.sqrt(np.mean(diff[inside] ** 2)))


def _without(tokens: Tokens, rows: IntArray) -> tuple[int, float | None]:
    """Tokens left, and their mean |Δ|."""
    keep = tokens.takes_part.copy()
    keep[rows] = False
    diff = tokens.trainer[keep].astype(np.float64) - tokens.rollout[keep]
    mean = float(np.abs(diff).mean()) if diff.size else math.nan
    return int(diff.size), mean if math.isfinite(mean) else None


@dataclass(frozen=True, slots=True)
class FaultyKinds:
    """What only the whole step tells of each side, rollout and trainer."""

    constants: tuple[float | None, float | None] = (None, None)  # a value that repeats
    zeros: tuple[bool, bool] = (False, False)  # zeros without a partner are placeholders


def faulty_values(tokens: Tokens, kinds: FaultyKinds) -> NDArray[np.bool_]:
    """[tokens] where a value of either side is no log-probability, as oddities() counts them.

    kinds: what oddities() found of the step that the tokens are a part of.
    """
    found = np.zeros(tokens.rollout.size, np.bool_)
    sides = (tokens.rollout, tokens.trainer)
    with np.errstate(invalid="ignore"):
        for own, partner, constant, zeros in zip(
            sides, sides[::-1], kinds.constants, kinds.zeros, strict=True
        ):
            found |= ~((own > SENTINEL_AT_MOST) & (own <= ROUNDING_ABOVE_ZERO))
            if zeros:
                found |= (own == 0.0) & (partner < ABOUT_ZERO) & (partner > -np.inf)
            if constant is not None:
                found |= own == np.asarray(constant, own.dtype)
    if tokens.extras.token_ids is not None:
        found |= tokens.extras.token_ids < 0
    return found & tokens.takes_part
