"""Against a loop over Python lists."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.push.pushed_step import response_span


@settings(max_examples=150, deadline=None)
@given(masks=st.lists(st.lists(st.booleans(), max_size=6), min_size=1, max_size=6))
def test_from_first_to_last_unmasked_token(masks: list[list[bool]]) -> None:
    keep, lengths = [], []
    for row in masks:
        places = [place for place, taken in enumerate(row) if taken]
        kept = [bool(places) and places[0] <= p <= places[-1] for p in range(len(row))]
        keep += kept
        lengths.append(sum(kept))
    limits = np.cumsum([0, *map(len, masks)])
    span = response_span(np.array([taken for row in masks for taken in row], bool), limits)
    assert span.keep.tolist() == keep
    assert span.cu_seqlens.tolist() == np.cumsum([0, *lengths]).tolist()
