"""Which side carries the error: errors planted on one side or on both."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from driftscope_probes.paired.which_side import WhichSide, errors_of, which_sides
from driftscope_probes.trace import Trace, TraceMeta

SEQUENCES, LENGTH = 32, 64
TOKENS = SEQUENCES * LENGTH
RNG = np.random.default_rng(0)
TRUTH = np.log(RNG.beta(0.9, 0.5, TOKENS).clip(1e-4, 0.95))
SIGMA = {"bf16": 0.07, "fp16": 0.009, "fp32": 0.0}
Floats = NDArray[np.float64]


def trace(logprobs: Floats, mask: NDArray[np.bool_] | None = None) -> Trace:
    return Trace(
        token_ids=np.zeros(logprobs.size, np.int32),
        logprobs=logprobs.astype(np.float32),
        cu_seqlens=np.arange(0, logprobs.size + 1, LENGTH),
        mask=np.ones(logprobs.size, np.bool_) if mask is None else mask,
        meta=TraceMeta("rollout", "m", "bf16", "vllm", "1"),
    )


def noise(sigma: float, seed: int) -> Floats:
    room = 1 - np.exp(TRUTH)
    drawn: Floats = sigma * room * np.random.default_rng(seed).normal(size=TOKENS)
    return drawn


def grid(*dtypes: str) -> dict[tuple[str, str], WhichSide]:
    sides = {dtype: (noise(SIGMA[dtype], 1), noise(SIGMA[dtype], 2)) for dtype in dtypes}
    return which_sides(
        {
            (engine, trainer): errors_of(
                trace(TRUTH + sides[engine][0]), trace(TRUTH + sides[trainer][1]), trace(TRUTH)
            )
            for engine in dtypes
            for trainer in dtypes
        },
        resamples=500,
    )


def test_an_error_on_one_side_is_that_sides() -> None:
    sides = grid("bf16", "fp16")
    rollout, trainer = sides["bf16", "fp16"], sides["fp16", "bf16"]
    assert rollout.carries == "rollout" and trainer.carries == "trainer"
    assert rollout.rollout_part is not None and rollout.rollout_part > 0.95
    assert rollout.rollout_sigma == pytest.approx(0.07, rel=0.06)
    assert rollout.trainer_sigma == pytest.approx(0.009, rel=0.06)
    assert rollout.sentence.startswith("The rollout carries 9")
    assert trainer.sentence.startswith("The trainer carries 9")


def test_equal_errors_are_both_sides() -> None:
    side = grid("bf16", "fp16")["bf16", "bf16"]
    assert side.carries == "both" and side.correlation == pytest.approx(0.0, abs=0.1)
    assert side.rollout_part == pytest.approx(0.5, abs=0.1)
    assert side.sigma == pytest.approx(0.07 * np.sqrt(2), rel=0.06)


def test_the_variances_add_up_whatever_the_correlation() -> None:
    common = noise(0.05, 3)
    side = which_sides(
        {
            ("bf16", "bf16"): errors_of(
                trace(TRUTH + common + noise(0.03, 4)),
                trace(TRUTH + common + noise(0.02, 5)),
                trace(TRUTH),
            )
        },
        resamples=200,
    )["bf16", "bf16"]
    assert side.correlation is not None and side.correlation > 0.7
    assert side.sigma**2 == pytest.approx(
        side.rollout_sigma**2 + side.trainer_sigma**2 - 2 * side.covariance, rel=1e-9
    )
    assert side.rollout_part is not None and side.rollout_part > 0.5


def test_what_cannot_be_told_is_both() -> None:
    """Two sequences: the part is near 80 %, but the interval reaches down to a half."""
    errors = np.where(np.arange(2 * LENGTH) < LENGTH, 0.1, 0.01)
    truth = np.full(2 * LENGTH, -1.0)
    trainer = np.where(np.arange(2 * LENGTH) < LENGTH, 0.0, -0.1)
    cell = errors_of(trace(truth + errors), trace(truth + trainer), trace(truth))
    side = which_sides({("bf16", "bf16"): cell}, resamples=500)["bf16", "bf16"]
    assert side.carries == "both" and "as far as these sequences tell" in side.sentence
    # And without intervals nothing is claimed.
    assert which_sides({("bf16", "bf16"): cell}, resamples=0)["bf16", "bf16"].carries == "both"


def test_equal_bits_and_the_references_own_precision_name_nobody() -> None:
    same = errors_of(trace(TRUTH), trace(TRUTH), trace(TRUTH))
    assert which_sides({("bf16", "bf16"): same}, resamples=200)["bf16", "bf16"].carries == "neither"
    tiny = errors_of(trace(TRUTH + noise(1e-5, 1)), trace(TRUTH), trace(TRUTH))
    side = which_sides({("fp32", "fp32"): tiny}, resamples=200)["fp32", "fp32"]
    assert side.carries == "unknown" and "neither is closer" in side.sentence
    assert side.rollout_part is None and side.rollout_part_low is None
    coarse = errors_of(trace(TRUTH + noise(0.07, 1)), trace(TRUTH), trace(TRUTH))
    side = which_sides({("bf16", "fp32"): coarse}, resamples=200)["bf16", "fp32"]
    assert side.carries == "rollout" and side.rollout_part == pytest.approx(1.0)
    assert side.sentence.startswith("The rollout carries all of the error, 0.07")


def test_changes_are_those_that_the_grid_measured() -> None:
    side = grid("bf16", "fp16", "fp32")["bf16", "bf16"]
    changes = {(change.engine_dtype, change.trainer_dtype): change for change in side.changes}
    # FP32 against FP32 is exact here: no quotient.
    assert len(changes) == 7
    both, one = changes["fp16", "fp16"], changes["bf16", "fp16"]
    assert (both.sides, one.sides) == ("both", "trainer")
    assert changes["fp16", "bf16"].sides == "rollout"
    assert both.closer == pytest.approx(7.8, rel=0.1)
    assert one.closer == pytest.approx(np.sqrt(2), rel=0.1)
    assert both.low is not None and both.high is not None and both.low < both.closer < both.high
    assert "to fp16 × fp16, buys a factor 7" in side.sentence
    assert "alone to fp16 buys a factor 1.4" in side.sentence
    assert "surely closer" in grid("bf16", "fp16")["fp16", "fp16"].sentence
    assert "no other cell" in grid("bf16")["bf16", "bf16"].sentence


def test_masked_and_non_finite_tokens_take_no_part() -> None:
    spoiled = TRUTH + noise(0.07, 1)
    mask = np.ones(TOKENS, np.bool_)
    mask[:LENGTH], spoiled[:LENGTH] = False, -40.0
    trainer = TRUTH + noise(0.009, 2)
    trainer[LENGTH : LENGTH + 3] = -np.inf, np.nan, np.inf
    reference = TRUTH.copy()
    reference[LENGTH : LENGTH + 6] = -np.inf
    cell = errors_of(trace(spoiled, mask), trace(trainer), trace(reference))
    assert cell.difference.tokens == TOKENS - LENGTH - 6
    side = which_sides({("bf16", "fp16"): cell}, resamples=200)["bf16", "fp16"]
    assert side.rollout_sigma == pytest.approx(0.07, rel=0.06) and side.carries == "rollout"


def test_a_mixed_pair_keeps_its_identity_with_non_finite_tokens_on_one_side() -> None:
    trainer = TRUTH + noise(0.07, 2)
    trainer[::7] = np.nan
    cell = errors_of(trace(TRUTH + noise(0.07, 1)), trace(trainer), trace(TRUTH))
    assert cell.difference.value() == pytest.approx(
        cell.rollout.value() + cell.trainer.value() - 2 * cell.both.value()
    )
