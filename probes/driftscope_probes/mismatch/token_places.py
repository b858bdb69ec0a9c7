"""Token places: where some tokens of a step lie, in words that name sequence, index and turn.

In: tokens and rows of the step. Out: TokenPlaces: the first one, how many sequences, and the shape
they have, if they have one: the end of sequences, from a token on, a turn, a span.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.mismatch.number import IntArray
from driftscope_probes.tokens import Tokens

Shape = Literal[
    "everywhere", "single", "last", "first", "turn", "to_end", "span", "in_turns", "scattered"
]
#: Share of the tokens, and of the sequences, that must have a shape before it is said.
MOSTLY = 0.9
EVERYWHERE = 0.99
#: Sequences and turns that are named.
NAMED = 8


@dataclass(frozen=True, slots=True)
class TokenPlaces:
    shape: Shape
    sequences: int  # that hold one
    named: tuple[int, ...]  # the first of them
    first_sequence: int
    first_index: int  # of the first token in that sequence, from 0; masked ones count too
    from_index: tuple[int, int] | None  # `to_end`: smallest and largest index they begin at
    turns: tuple[int, ...]  # `turn`, `in_turns`: the turns that hold them
    ids_zero: bool  # token ids are 0 at all of them, and not everywhere else
    words: str  # "in sequences 4 and 9, from index 3 on to the end"

    def to_dict(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "sequences": self.sequences,
            "named_sequences": list(self.named),
            "first_sequence": self.first_sequence,
            "first_index": self.first_index,
            "from_index": None if self.from_index is None else list(self.from_index),
            "turns": list(self.turns),
            "token_ids_zero": self.ids_zero,
            "words": self.words,
        }


def token_places(tokens: Tokens, rows: IntArray) -> TokenPlaces:
    """`rows`: [n] of the step, rising, at least one, all of them unmasked."""
    limits = tokens.cu_seqlens
    unmasked = np.arange(tokens.rollout.size) if tokens.mask is None else tokens.mask.nonzero()[0]
    before = np.searchsorted(unmasked, limits)
    sequence = np.searchsorted(limits, rows, side="right") - 1
    index = rows - limits[sequence]
    which, starts, counts = np.unique(sequence, return_index=True, return_counts=True)
    filled = int(np.count_nonzero(before[1:] > before[:-1]))
    #: [n] place of each row among the unmasked tokens
    place = np.searchsorted(unmasked, rows)
    after = before[1:][sequence] - place  # 1 for the last unmasked token of its sequence
    inside = place - before[:-1][sequence]
    turns = _turns(tokens, rows, unmasked)
    to_end = after[starts] == counts
    span = _runs(place, sequence) == which.size

    shape: Shape
    if rows.size >= EVERYWHERE * unmasked.size:
        shape = "everywhere"
    elif rows.size == 1:
        shape = "single"
    elif float((after == 1).mean()) >= MOSTLY:
        shape = "last"
    elif float((inside == 0).mean()) >= MOSTLY:
        shape = "first"
    elif turns is not None and turns[1] >= MOSTLY:
        shape = "turn"
    elif float(to_end.mean()) >= MOSTLY:
        shape = "to_end"
    elif span and rows.size > which.size:
        shape = "span"
    elif turns is not None:
        shape = "in_turns"
    else:
        shape = "scattered"
    begins = index[starts][to_end] if shape == "to_end" else None
    from_index = None if begins is None else (int(begins.min()), int(begins.max()))
    ids = tokens.extras.token_ids
    zero = ids is not None and bool((ids[rows] == 0).all()) and bool(ids.any())
    in_turns = turns[0] if turns is not None and shape in ("turn", "in_turns") else ()
    single = (int(sequence[0]), int(index[0]))
    return TokenPlaces(
        shape=shape,
        sequences=int(which.size),
        named=tuple(which[:NAMED].tolist()),
        first_sequence=single[0],
        first_index=single[1],
        from_index=from_index,
        turns=in_turns,
        ids_zero=zero,
        words=_words(shape, which, filled, single, from_index, in_turns, zero),
    )


def _turns(
    tokens: Tokens, rows: IntArray, unmasked: IntArray
) -> tuple[tuple[int, ...], float] | None:
    """Turns that hold a row, and which share of the tokens of those turns the rows are; None where
    turns were not given, or all turns hold one."""
    labels = tokens.extras.turn_ids
    if labels is None:
        return None
    held = np.unique(labels[rows])
    inside = np.isin(labels[unmasked], held)
    if inside.all():
        return None
    return tuple(held[:NAMED].tolist()), rows.size / int(inside.sum())


def _runs(place: IntArray, sequence: IntArray) -> int:
    """Unbroken runs among the unmasked tokens."""
    follows = (place[1:] == place[:-1] + 1) & (sequence[1:] == sequence[:-1])
    return int(place.size - np.count_nonzero(follows))


def _words(
    shape: Shape,
    which: NDArray[np.int64],
    filled: int,
    first: tuple[int, int],
    from_index: tuple[int, int] | None,
    turns: tuple[int, ...],
    ids_zero: bool,
) -> str:
    every = which.size == filled
    ids = "; token ids are 0 there" if ids_zero else ""
    where = f"first in sequence {first[0]}, index {first[1]}{ids}"
    among = f"in all {filled:,} sequences" if every else f"in {_sequences(which)}"
    of = "every sequence" if every else f"{which.size:,} of {filled:,} sequences"
    named = f"{'turn' if len(turns) == 1 else 'turns'} {_listed(turns)}"
    if shape == "everywhere":
        return f"in every token{ids}"
    if shape == "single":
        return f"in sequence {first[0]}, index {first[1]}{ids}"
    if shape in ("last", "first"):
        return f"the {shape} token of {of}, {where}"
    if shape == "turn":
        return f"all of {named}, {among}, {where}"
    if shape == "in_turns":
        return f"within {named}, {among}, {where}"
    if shape == "span":
        return f"one span of each, {among}, {where}"
    if shape == "scattered" or from_index is None:
        return f"{among}, {where}"
    low, high = from_index
    begins = f"index {low}" if low == high else f"an index of their own ({low} to {high})"
    there = "; token ids are 0 from there" if ids_zero else ""
    return f"{among}, from {begins} on to the end{there}"


def _sequences(which: NDArray[np.int64]) -> str:
    if which.size == 1:
        return f"sequence {which[0]}"
    if which.size <= NAMED:
        return f"sequences {_listed(which.tolist())}"
    return f"{which.size:,} sequences ({', '.join(map(str, which[:NAMED]))}, …)"


def _listed(numbers: tuple[int, ...] | list[int]) -> str:
    most, last = numbers[:-1], numbers[-1:]
    return " and ".join(", ".join(map(str, part)) for part in (most, last) if part)
