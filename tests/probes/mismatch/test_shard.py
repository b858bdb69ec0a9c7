from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import reduce

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.mismatch import Shard, compare, merge_shards, shard_of
from driftscope_probes.mismatch.counts import SIDES
from driftscope_probes.tokens import Tokens

NEEDS_ALL_TOKENS = {
    *("ulp_distance_p50", "ulp_distance_max"),
    *(f"{side}_{what}" for side in SIDES for what in ("significant_bits", "half_step_p99")),
}
ABOUT = {"intervals", "interval_level", "interval_resamples", "interval_seed", "undefined"}
QUANTILES = "abs_diff_p50 abs_diff_p90 abs_diff_p95 abs_diff_p99 abs_diff_p99p9 abs_diff_p99p99"


def sequences_of(pair: Tokens, first: int, last: int) -> Shard:
    assert pair.mask is not None
    start, end = pair.cu_seqlens[first], pair.cu_seqlens[last]
    return shard_of(
        pair.rollout[start:end],
        pair.trainer[start:end],
        pair.cu_seqlens[first : last + 1] - start,
        pair.mask[start:end],
    )


def whole(pair: Tokens) -> Shard:
    return sequences_of(pair, 0, pair.cu_seqlens.size - 1)


@settings(max_examples=100)
@given(st.integers(0, 10**6), st.data())
def test_shards_merge_to_the_whole_bit_for_bit_whatever_the_split(
    batch: Callable[[int], Tokens], seed: int, data: st.DataObject
) -> None:
    pair = batch(seed)
    sequences = pair.cu_seqlens.size - 1
    cuts = data.draw(st.sets(st.integers(1, sequences - 1), max_size=5))
    limits = [0, *sorted(cuts), sequences]
    shards = [sequences_of(pair, a, b) for a, b in zip(limits, limits[1:], strict=False)]
    expected = whole(pair).to_dict()
    assert reduce(merge_shards, shards).to_dict() == expected
    # Grouping does not matter either: ranks may merge in a tree.
    from_the_right = reduce(lambda late, early: merge_shards(early, late), reversed(shards))
    assert from_the_right.to_dict() == expected
    merged = reduce(merge_shards, shards)
    assert merged.sums.sequence_index.tolist() == whole(pair).sums.sequence_index.tolist()


@settings(max_examples=50)
@given(st.integers(0, 10**6))
def test_the_whole_has_the_numbers_of_the_comparison(
    batch: Callable[[int], Tokens], seed: int
) -> None:
    pair = batch(seed)
    expected = compare(pair.rollout, pair.trainer, pair.cu_seqlens, pair.mask, resamples=0)
    numbers, found = expected.to_dict(), whole(pair).to_dict()
    brackets = found["quantile_brackets"]
    assert set(brackets) == set(QUANTILES.split())
    missing = numbers.keys() - found.keys()
    assert missing - ABOUT == NEEDS_ALL_TOKENS | set(QUANTILES.split())
    for name in numbers.keys() & found.keys() - ABOUT:
        assert found[name] == numbers[name], name
    for name, (low, high) in brackets.items():
        assert low <= numbers[name] <= high, name


def test_one_token_more_or_less_is_caught(batch: Callable[[int], Tokens]) -> None:
    pair = batch(4)
    sequences = pair.cu_seqlens.size - 1
    overlapping = merge_shards(sequences_of(pair, 0, 3), sequences_of(pair, 2, sequences))
    assert overlapping.to_dict() != whole(pair).to_dict()


def test_a_shard_without_tokens_changes_nothing_but_the_empty_sequences() -> None:
    nothing = shard_of(np.zeros(0), np.zeros(0), [0, 0])
    some = shard_of(np.array([-1.0, -2.0]), np.array([-1.5, -2.0]), [0, 2])
    assert nothing.to_dict()["abs_diff_mean"] is None
    assert "no unmasked token" in nothing.to_dict()["undefined"]["diff_std"]
    merged = merge_shards(nothing, some).to_dict()
    assert merged.pop("empty_sequences") == 1
    alone = some.to_dict()
    assert alone.pop("empty_sequences") == 0
    assert merged == alone


def test_broken_input_stays_counted_and_out_of_the_json() -> None:
    broken = shard_of(np.array([np.nan, -1e300, 800.0]), np.array([-1.0, -1.0, 801.0]), [0, 3])
    sound = shard_of(np.array([-1.0]), np.array([-1.5]), [0, 1])
    found = merge_shards(sound, broken).to_dict()
    json.dumps(found, allow_nan=False)
    assert found["nonfinite_tokens"] == 1 and found["rollout_positive"] == 1
    assert found["kl_k3"] is None and math.isclose(found["abs_diff_max"], 1e300)
