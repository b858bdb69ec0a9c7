from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from driftscope_probes.mismatch import profiles, profiles_of
from driftscope_probes.tokens import Tokens
from driftscope_probes.trace import Trace, TraceMeta, both_sides

MOST_NUMBERS = 600  # in any one part


def numbers_in(value: object) -> int:
    if isinstance(value, dict):
        return sum(numbers_in(v) for v in value.values())
    return len(value) if isinstance(value, list) else 1


@pytest.mark.parametrize("seed", range(10))
def test_every_token_is_in_every_profile(
    seed: int,
    batch: Callable[[int], Tokens],
    plain: Callable[[Tokens], list[list[tuple[int, float, float]]]],
) -> None:
    pair = batch(seed)
    tokens = sum(len(sequence) for sequence in plain(pair))
    found = profiles(pair.rollout, pair.trainer, pair.cu_seqlens, pair.mask)
    histogram = found.abs_diff_histogram
    assert histogram.zero + histogram.below + histogram.counts.sum() + histogram.above == tokens
    assert found.by_response_index.counts.sum() == tokens
    assert found.by_rollout_prob.counts.sum() == tokens
    assert found.sequences.length.sum() == tokens
    json.dumps(found.to_dict(), allow_nan=False)


def test_size_is_bounded_for_large_input() -> None:
    rng = np.random.default_rng(0)
    rollout = np.log(rng.random(200_000))
    limits = np.arange(0, 200_001, 200)
    found = profiles(rollout, rollout + rng.normal(size=rollout.size), limits).to_dict()
    for name, part in found.items():
        assert numbers_in(part) <= MOST_NUMBERS, name


def test_nothing_to_plot_is_not_an_error() -> None:
    found = profiles(np.full(3, np.nan), np.zeros(3), [0, 3]).to_dict()
    assert found["sequences"] == {"length": [], "seq_logratio": []}
    json.dumps(found, allow_nan=False)


def test_of_a_pair_of_traces() -> None:
    def trace(logprobs: list[float], side: str) -> Trace:
        return Trace(
            token_ids=np.array([5, 6, 7], dtype=np.int32),
            logprobs=np.array(logprobs, dtype=np.float32),
            cu_seqlens=np.array([0, 3]),
            mask=np.array([True, False, True]),
            meta=TraceMeta("rollout" if side == "rollout" else "trainer", "m", "bf16", "hf", "1"),
        )

    tokens = both_sides(trace([-1.0, -1.0, -2.0], "rollout"), trace([-1.5, 9.0, -2.0], "trainer"))
    assert profiles_of(tokens).by_response_index.counts.tolist() == [1, 0, 1]
