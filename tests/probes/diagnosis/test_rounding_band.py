from __future__ import annotations

import numpy as np
import pytest

from driftscope_probes.diagnosis.floor import Floor, prior_floor
from driftscope_probes.diagnosis.rounding_band import Band, rounding_band
from driftscope_probes.mismatch.fused.token_pass import token_pass
from driftscope_probes.mismatch.histogram import abs_diff_histogram
from driftscope_probes.tokens import checked_tokens

BINS = 20


def band_of(floor: Floor, scale: float, seed: int = 0, excess: float = 1.0) -> Band:
    """Of noise on the logits, `scale` times the floor."""
    random = np.random.default_rng(seed)
    rollout = -random.exponential(1.0, 20_000)
    room = 1 - np.exp(rollout)
    trainer = rollout + scale * floor.sigma * room * random.standard_normal(rollout.size)
    tokens = checked_tokens(rollout, trainer, [0, rollout.size])
    counts = np.histogram(np.exp(rollout), BINS, (0, 1))[0].tolist()
    histogram = abs_diff_histogram(token_pass(tokens))
    found = rounding_band(floor, excess, counts, histogram, "the floor")
    assert found is not None
    return found


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_noise_at_the_floor_is_inside_and_ten_times_it_is_outside(dtype: str) -> None:
    floor = prior_floor(dtype, dtype)
    inside, outside = band_of(floor, 1.0), band_of(floor, 10.0)
    assert inside.inside and inside.sentence.startswith("Inside what rounding allows: 0 of 20,000")
    assert not outside.inside and outside.sentence.startswith("Outside what rounding allows")
    assert inside.up_to == outside.up_to


def test_a_tail_of_one_token_in_a_hundred_is_outside() -> None:
    floor = prior_floor("bf16", "bf16")
    rollout = np.full(10_000, -2.0)
    trainer = rollout + np.where(np.arange(10_000) % 100 == 0, 3.0, 0.02)
    histogram = abs_diff_histogram(token_pass(checked_tokens(rollout, trainer, [0, 10_000])))
    counts = [0, 0, 10_000, *[0] * 17]
    found = rounding_band(floor, 1.0, counts, histogram, "the floor")
    assert found is not None and not found.inside and found.beyond == 100


def test_a_step_above_the_floor_as_a_whole_is_outside() -> None:
    found = band_of(prior_floor("bf16", "bf16"), 1.0, excess=3.0)
    assert not found.inside and "all together 3 times the floor" in found.sentence
