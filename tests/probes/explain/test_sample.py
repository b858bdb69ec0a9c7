"""Rows of a sample: which token is read, which is scored, and where a row is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from driftscope_probes.explain.sample import Sample

TOKENS = st.lists(st.integers(0, 99), min_size=1, max_size=5).map(tuple)
SEQUENCES = st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=4)


@given(sequences=SEQUENCES)
def test_each_response_token_is_scored_at_the_row_before_it(
    sequences: list[tuple[tuple[int, ...], tuple[int, ...]]],
) -> None:
    prompts, responses = zip(*sequences, strict=True)
    sample = Sample(prompts, responses)
    assert sample.rows == len(sample.tokens) == len(sample.targets) == len(sample.positions)
    assert sample.targets[sample.scored].tolist() == [t for one in responses for t in one]
    for row in range(sample.rows):
        sequence, position = sample.place_of(row)
        whole = prompts[sequence] + responses[sequence]
        assert position == sample.positions[row]
        assert (sample.tokens[row], sample.targets[row]) == whole[position : position + 2]
