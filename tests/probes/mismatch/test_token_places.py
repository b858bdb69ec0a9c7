from __future__ import annotations

import numpy as np
import pytest

from driftscope_probes.mismatch.token_places import token_places
from driftscope_probes.tokens import Extras, Tokens

#: Four sequences of five tokens; the second token of each is masked.
LIMITS = np.arange(0, 21, 5)
INDEX = np.tile(np.arange(5), 4)
TURNS = np.tile([0, 0, 1, 1, 2], 4)


def step(turns: bool = False, ids: np.ndarray | None = None) -> Tokens:
    values = -np.ones(20, np.float32)
    extras = Extras(token_ids=ids, turn_ids=TURNS if turns else None)
    return Tokens(values, values, LIMITS, INDEX != 1, extras)


@pytest.mark.parametrize(
    ("rows", "shape", "words"),
    [
        ([7], "single", "in sequence 1, index 2"),
        ([4, 9, 14, 19], "last", "the last token of every sequence, first in sequence 0, index 4"),
        ([4, 14], "last", "the last token of 2 of 4 sequences, first in sequence 0, index 4"),
        ([0, 5, 10, 15], "first", "the first token of every sequence, first in sequence 0"),
        ([7, 8, 9, 18, 19], "to_end", "in sequences 1 and 3, from an index of their own (2 to 3)"),
        ([2, 3, 4, 7, 8, 9], "to_end", "in sequences 0 and 1, from index 2 on to the end"),
        ([2, 3, 7, 8], "span", "one span of each, in sequences 0 and 1"),
        ([0, 3, 12], "scattered", "in sequences 0 and 2, first in sequence 0, index 0"),
        (np.flatnonzero(INDEX != 1), "everywhere", "in every token"),
        # A masked token between two others does not part them.
        ([0, 2, 5, 7], "span", "one span of each, in sequences 0 and 1"),
    ],
)
def test_shapes(rows: list[int], shape: str, words: str) -> None:
    found = token_places(step(), np.asarray(rows))
    assert found.shape == shape and found.words.startswith(words)


def test_a_whole_turn_goes_before_a_span_and_a_part_of_it_is_said() -> None:
    whole = token_places(step(turns=True), np.flatnonzero(TURNS == 1))
    assert (whole.shape, whole.turns) == ("turn", (1,))
    assert whole.words == "all of turn 1, in all 4 sequences, first in sequence 0, index 2"
    part = token_places(step(turns=True), np.array([2, 8, 12]))
    assert part.shape == "in_turns" and part.words.startswith("within turn 1, in sequences 0, 1")


def test_ids_that_are_0_there_and_not_everywhere() -> None:
    rows = np.array([3, 4, 8, 9])
    ids = np.arange(1, 21)
    assert not token_places(step(ids=ids), rows).ids_zero
    ids[rows] = 0
    found = token_places(step(ids=ids), rows)
    assert found.ids_zero and found.words.endswith("token ids are 0 from there")
    assert not token_places(step(ids=np.zeros(20, np.int64)), rows).ids_zero
