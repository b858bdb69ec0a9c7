"""Which estimate becomes the floor of a pair, and why."""

from __future__ import annotations

import numpy as np
import pytest

from driftscope_probes.dtypes import DTYPES
from driftscope_probes.floor.estimates import Estimate
from driftscope_probes.floor.report import (
    PairFloor,
    Scores,
    chosen,
    dtype_noise,
    floor_sentence,
    pair_floor,
)
from driftscope_probes.floor.ways import ALONE, BATCHED, DECODED, PERTURBATIONS, way_name

TOKENS = 4000
CU_SEQLENS = np.arange(0, TOKENS + 1, 100)
SIGMA = {"bf16": 0.07, "fp16": 0.009, "fp32": 1e-5}


def scores(shared: float = 0.0) -> Scores:
    """Every way is the truth with an error of its own; decoding and forward share a part."""
    rng = np.random.default_rng(0)
    truth = np.log(rng.beta(0.9, 0.5, TOKENS).clip(1e-4, 0.98))
    room = 1 - np.exp(truth)
    ways = {}
    for dtype in DTYPES:
        common = rng.normal(size=TOKENS)
        for way in (ALONE, BATCHED, DECODED, *PERTURBATIONS):
            own = rng.normal(size=TOKENS)
            error = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
            if way == ALONE and dtype == "fp32":
                error = np.zeros(TOKENS)
            noise = SIGMA[dtype] * room * error
            ways[way_name(way, dtype)] = (truth + noise).astype(np.float32)
    return Scores(ways, CU_SEQLENS)


def an(sigma: float) -> Estimate:
    return Estimate(sigma, None, 100, 4)


def test_the_two_ways_of_computing_give_the_floor_of_independent_errors() -> None:
    pair = pair_floor(scores(), "bf16", "bf16")
    assert pair.basis == "same_side"
    assert pair.sigma == pytest.approx(0.07 * np.sqrt(2), rel=0.05)
    assert pair.low is not None and pair.high is not None and pair.low < pair.sigma < pair.high
    mixed = pair_floor(scores(), "bf16", "fp32")
    assert mixed.sigma == pytest.approx(0.07, rel=0.05)
    assert pair_floor(scores(), "fp32", "fp32").sigma == pytest.approx(1e-5, rel=0.1)


def test_ways_that_share_their_error_are_not_taken_for_two_implementations() -> None:
    pair = pair_floor(scores(shared=0.9), "fp16", "fp16")
    assert pair.basis == "reference"
    assert pair.sigma == pytest.approx(0.009 * np.sqrt(2), rel=0.05)
    assert "share most of their error" in pair.reason


def test_equal_bits_leave_the_perturbation() -> None:
    assert chosen(an(0.0), an(0.0), an(1e-6), exact=True)[0] == "perturbation"


def test_more_than_rounding_does_not_pass_as_a_floor() -> None:
    basis, reason = chosen(an(0.9), an(0.8), an(0.1), exact=False)
    assert basis == "perturbation" and "9.0 times" in reason
    # FP32's rounding lies in the order of summation, which the perturbation leaves out.
    assert chosen(an(0.9), an(0.8), an(0.1), exact=True)[0] == "same_side"
    assert chosen(an(0.4), an(0.3), an(0.1), exact=False)[0] == "same_side"


def test_one_dtype_by_itself_has_every_estimate() -> None:
    noise = dtype_noise(scores(), "fp16")
    assert noise.trainer_error.sigma == pytest.approx(0.009, rel=0.06)
    assert noise.batch_shape.sigma == pytest.approx(0.009 * np.sqrt(2), rel=0.06)
    assert noise.perturbation.tokens == TOKENS and noise.perturbation.sequences == 40


def test_the_sentence_names_matched_pairs_first() -> None:
    found = scores()
    pairs: tuple[PairFloor, ...] = tuple(
        pair_floor(found, "bf16", trainer) for trainer in ("bf16", "fp32")
    )
    assert floor_sentence("m", pairs).endswith("sigma = 0.096 in bf16 nats.")
    assert "in bf16 against fp32" in floor_sentence("m", pairs[1:])
