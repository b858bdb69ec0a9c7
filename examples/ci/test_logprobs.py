"""A test for a trainer's or an engine's own suite: both sides give the same probabilities.

pytest examples/ci/test_logprobs.py
"""

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.testing import assert_logprobs_agree


def sampled_and_scored() -> tuple[list[NDArray[np.float32]], ...]:
    """Yours: sample with the engine, score the same tokens with the trainer. Here: its rounding."""
    generator = np.random.default_rng(0)
    scored = [-generator.exponential(1.0, length).astype(np.float32) for length in (40, 25)]
    noise = [generator.normal(0.0, 0.01, one.size).astype(np.float32) for one in scored]
    return [(one + by).astype(np.float32) for one, by in zip(scored, noise, strict=True)], scored


def test_the_engine_and_the_trainer_agree() -> None:
    rollout, trainer = sampled_and_scored()
    assert_logprobs_agree(rollout, trainer, dtype="bf16")
