from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.mismatch.fused.order_statistics import order_statistics
from driftscope_probes.mismatch.fused.token_pass import token_pass
from driftscope_probes.tokens import checked_tokens

sizes = st.lists(
    st.one_of(
        st.floats(0, 1e300),
        st.floats(0, 1e-300),
        st.sampled_from([0.0, 0.5, 0.5000001, 0.501, 1.0, 64.0, 1e9]),
    ),
    min_size=1,
    max_size=80,
)


@settings(max_examples=100, deadline=None)
@given(sizes)
def test_every_rank_is_what_sorting_puts_there(values: list[float]) -> None:
    count = len(values)
    pair = checked_tokens(np.zeros(count), np.array(values), [0, count])
    found = order_statistics(pair, token_pass(pair), set(range(count)), set(range(count)))
    assert list(found.abs_diff.values()) == sorted(values)
    with np.errstate(over="ignore", under="ignore"):
        singles = np.array(values, dtype=np.float64).astype(np.float32)
    assert list(found.ulp_distance.values()) == sorted(singles.view(np.int32).tolist())


def test_many_equal_tokens_and_left_out_ones_do_not_matter() -> None:
    rng = np.random.default_rng(3)
    rollout = -rng.integers(1, 4, 5000).astype(np.float32)
    trainer = -rng.integers(1, 4, 5000).astype(np.float32) / np.float32(1.25)
    trainer[::7] = np.nan
    mask = rng.random(5000) < 0.8
    pair = checked_tokens(rollout, trainer, [0, 2500, 5000], mask)
    kept = mask & np.isfinite(trainer)
    rising = np.sort(np.abs(trainer.astype(np.float64) - rollout)[kept])
    ranks = {0, 17, rising.size // 2, rising.size - 1}
    found = order_statistics(pair, token_pass(pair), ranks, set())
    assert found.abs_diff == {rank: rising[rank] for rank in ranks}
