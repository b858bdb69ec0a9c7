from __future__ import annotations

import json
from bisect import bisect_left

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.mismatch.fused.token_pass import token_pass
from driftscope_probes.mismatch.histogram import BUCKETS, EDGES, Histogram, abs_diff_histogram
from driftscope_probes.tokens import checked_tokens

sizes = st.lists(
    st.one_of(
        st.floats(0, 1e300),
        st.floats(0, 1),
        st.sampled_from(EDGES),
        st.sampled_from([float(np.nextafter(edge, 0)) for edge in EDGES]),
        st.sampled_from([float(np.nextafter(edge, np.inf)) for edge in EDGES]),
        st.sampled_from([0.0, 5e-324]),
    ),
    max_size=80,
)


def of_values(values: list[float]) -> Histogram:
    pair = checked_tokens(np.zeros(len(values)), np.array(values, np.float64), [0, len(values)])
    return abs_diff_histogram(token_pass(pair))


def flat(values: list[float]) -> list[int]:
    histogram = of_values(values)
    return [histogram.zero, histogram.below, *histogram.counts.tolist(), histogram.above]


def test_edges_rise_by_the_same_two_steps() -> None:
    assert len(EDGES) == BUCKETS + 1
    assert (EDGES[0], EDGES[-1]) == (2.0**-40, 64.0)
    assert {EDGES[i + 1] / EDGES[i] for i in range(BUCKETS)} == {1.5, 4 / 3}


@given(sizes)
def test_every_value_lands_where_bisection_puts_it(values: list[float]) -> None:
    expected = [0] * (BUCKETS + 3)
    for value in values:
        expected[0 if value == 0 else 1 + bisect_left(EDGES, value)] += 1
    assert flat(values) == expected


@settings(max_examples=50)
@given(sizes, sizes)
def test_shards_merge_to_the_whole(first: list[float], second: list[float]) -> None:
    merged = of_values(first).merged(of_values(second))
    merged_flat = [merged.zero, merged.below, *merged.counts.tolist(), merged.above]
    assert merged_flat == flat(first + second)


def test_json_is_bounded_and_finite() -> None:
    histogram = of_values([1e308, 1e308, 0.5]).to_dict()
    assert histogram["abs_diff_sum"] is None
    assert len(histogram["edges"]) == len(histogram["counts"]) + 1 < 100
    json.dumps(histogram, allow_nan=False)
