from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from driftscope_probes.mismatch.fused.token_pass import token_pass
from driftscope_probes.mismatch.histogram import (
    EDGES,
    Histogram,
    abs_diff_histogram,
    quantile_bracket,
)
from driftscope_probes.mismatch.number import NO_TOKENS, FloatArray
from driftscope_probes.tokens import checked_tokens


def of_values(sizes: FloatArray) -> Histogram:
    pair = checked_tokens(np.zeros(sizes.size), sizes, [0, sizes.size])
    return abs_diff_histogram(token_pass(pair))


@given(
    st.lists(
        st.one_of(st.floats(0, 1), st.floats(0, 1e300), st.sampled_from([0.0, *EDGES])),
        min_size=1,
        max_size=60,
    ),
    st.sampled_from([0.5, 0.9, 0.95, 0.99, 0.999, 0.9999]),
)
def test_the_quantile_lies_inside(values: list[float], share: float) -> None:
    sizes = np.array(values)
    bracket = quantile_bracket(of_values(sizes), share, max(values))
    assert isinstance(bracket, tuple)
    low, high = bracket
    assert low <= np.quantile(sizes, share) <= high <= max(values)


def test_neighbouring_edges_where_all_tokens_share_a_bucket() -> None:
    bracket = quantile_bracket(of_values(np.full(100, 0.6)), 0.99, 0.6)
    assert bracket == (0.5, 0.6)
    assert quantile_bracket(of_values(np.zeros(5)), 0.5, 0.0) == (0.0, 0.0)


def test_the_bracket_starts_in_the_bucket_of_the_quantile() -> None:
    """Value 5 of 11 is the first of its bucket: the bucket before, which holds 5, ends earlier."""
    sizes = np.repeat([0.3, 0.6], [5, 6])
    assert quantile_bracket(of_values(sizes), 0.5, 0.6) == (0.5, 0.6)


def test_nothing_has_no_quantile() -> None:
    assert quantile_bracket(of_values(np.zeros(0)), 0.5, 0.0) == NO_TOKENS
