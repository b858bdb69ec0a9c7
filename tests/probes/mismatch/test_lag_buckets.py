from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from driftscope_probes.mismatch.fused.token_pass import token_pass
from driftscope_probes.mismatch.staleness import lag_buckets
from driftscope_probes.mismatch.sums import sequence_sums
from driftscope_probes.tokens import Tokens, checked_tokens


@pytest.mark.parametrize("seed", range(10))
def test_equal_to_plain_loops(seed: int, batch: Callable[[int], Tokens]) -> None:
    pair = batch(seed)
    sums = sequence_sums(token_pass(pair))
    lag = np.random.default_rng(seed).integers(0, 3, pair.cu_seqlens.size - 1)
    found = lag_buckets(sums, lag)
    plain: dict[int, list[float]] = {}
    for place, sequence in enumerate(sums.sequence_index.tolist()):
        bucket = plain.setdefault(int(lag[sequence]), [0, 0, 0.0, 0.0])
        bucket[0] += 1
        bucket[1] += int(sums.length[place])
        bucket[2] += float(sums.abs_diff[place])
        bucket[3] += float(sums.diff[place])
    assert found.lag.tolist() == sorted(plain)
    for place, key in enumerate(sorted(plain)):
        sequences, tokens, abs_diff, diff = plain[key]
        assert (found.sequences[place], found.tokens[place]) == (sequences, tokens)
        assert found.abs_diff_mean[place] == pytest.approx(abs_diff / tokens, rel=1e-12)
        assert found.diff_mean[place] == pytest.approx(diff / tokens, rel=1e-9, abs=1e-15)


def test_a_sequence_without_tokens_is_in_no_bucket_and_json_is_finite() -> None:
    pair = checked_tokens(np.array([-1e300, -1.0]), np.array([-1.0, -1.0]), [0, 1, 1, 2])
    buckets = lag_buckets(sequence_sums(token_pass(pair)), np.array([0, 1, 2])).to_dict()
    assert buckets["lag"] == [0, 2]
    assert buckets["kl_k3"] == [None, 0.0]
    json.dumps(buckets, allow_nan=False)
