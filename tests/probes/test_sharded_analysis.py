"""A step analysed shard by shard is the step analysed whole, but for what it says it lacks."""

from __future__ import annotations

import numpy as np
import pytest

from driftscope_probes.analysis import analyze_step
from driftscope_probes.push import PushError
from driftscope_probes.push.pushed_step import PushedStep, pushed_step
from driftscope_probes.push.step_file import join_steps
from driftscope_probes.sharded_analysis import analyze_shard, merge_analyses

#: Of a whole step only: names that a merged one leaves out.
ABSENT = {
    f"{side}_{what}"
    for side in ("rollout", "trainer")
    for what in ("significant_bits", "half_step_p99")
}


def share(seed: int, sigma: float = 0.01, **metadata: str) -> PushedStep:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 60, 12)
    rollout = np.log(random.beta(3, 1, int(lengths.sum()))).astype(np.float32)
    tensors = {
        "rollout_logprobs": rollout,
        "trainer_logprobs": rollout + random.normal(0, sigma, rollout.size).astype(np.float32),
        "cu_seqlens": np.cumsum([0, *lengths]),
    }
    return pushed_step(tensors, {"model": "m", **metadata})


def test_the_numbers_are_those_of_the_whole_bit_for_bit() -> None:
    shares = [share(seed) for seed in range(4)]
    merged = merge_analyses([analyze_shard(one) for one in shares])
    whole = analyze_step(join_steps(shares))
    found, expected = merged.comparison.to_dict(), whole.comparison.to_dict()
    lacking = set(found["undefined"]) - set(expected["undefined"])
    assert lacking and all(name.startswith(("abs_diff_p", "ulp_distance_p")) for name in lacking)
    assert expected.keys() - found.keys() == ABSENT
    same = found.keys() - lacking - {"undefined"}
    assert {name: found[name] for name in same} == {name: expected[name] for name in same}
    assert merged.abs_diff_histogram.to_dict() == whole.abs_diff_histogram.to_dict()
    assert "analysed in 4 shards" in merged.notes[-1]


def test_a_fault_of_one_rank_is_what_the_diagnosis_speaks_of() -> None:
    """The planted fault: one rank of three scores with far too much noise."""
    shares = [analyze_shard(share(seed, sigma)) for seed, sigma in enumerate((1e-3, 1.0, 1e-3))]
    merged = merge_analyses(shares)
    assert merged.diagnosis == shares[1].analysis.diagnosis
    assert merged.diagnosis.verdict in ("above_floor", "bug_like")
    assert "shard 1" in merged.notes[-1]


def test_shards_with_other_metadata_are_refused() -> None:
    shares = [analyze_shard(share(0)), analyze_shard(share(1, trainer_dtype="fp32"))]
    with pytest.raises(PushError, match="trainer_dtype.*shard 1"):
        merge_analyses(shares)
